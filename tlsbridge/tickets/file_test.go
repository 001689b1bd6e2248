package tickets

import (
	"crypto/tls"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestANewMasterSecretReachesAllNodesBeforeItIsUsed(t *testing.T) {
	keys := masterFile(t, "a")
	copied := masterFile(t, "a")
	synctest.Test(t, func(t *testing.T) {
		log, output := logged()
		one := mustOpen(t, Options{Keys: keys, Rotate: rotation, Log: log})
		two := mustOpen(t, Options{Keys: copied, Rotate: rotation, Now: skewed(30 * time.Second)})
		here := serve(one, "smtp")
		client := newClient(tls.VersionTLS13)
		connect(t, client, here)
		old := one.Status().Generation

		writeMaster(t, strings.TrimPrefix(keys, "file:"), "b")
		for range 7 * rotation / time.Minute {
			time.Sleep(time.Minute)
			synctest.Wait()
			if one.Status().Generation == old+1 {
				writeMaster(t, strings.TrimPrefix(copied, "file:"), "b")
			}
			if !opens(one, two) || !opens(two, one) {
				t.Fatalf("in generation %d tickets do not resume on the other node", one.Status().Generation)
			}
			if s := one.Status(); s.Generation == old+2 && !connect(t, client, here).DidResume {
				t.Error("a ticket by the old master does not resume in its time")
			}
		}
		if n := len(one.snapshot()); n != past+2 {
			t.Errorf("%d secrets are kept after the change", n)
		}
		fresh := mustOpen(t, Options{Keys: keys, Rotate: rotation})
		if !opens(one, fresh) || !opens(fresh, one) {
			t.Error("the new master was not taken")
		}
		if !strings.Contains(output(), "has changed") {
			t.Errorf("log: %s", output())
		}
	})
}

func TestAMasterSecretThatIsTakenBackIsUsedAgain(t *testing.T) {
	keys := masterFile(t, "a")
	path := strings.TrimPrefix(keys, "file:")
	synctest.Test(t, func(t *testing.T) {
		ring := mustOpen(t, Options{Keys: keys, Rotate: rotation})
		untouched := mustOpen(t, Options{Keys: masterFile(t, "a"), Rotate: rotation})
		for _, letter := range []string{"b", "c", "a"} {
			writeMaster(t, path, letter)
			time.Sleep(2 * maxPoll)
		}
		for range 4 {
			synctest.Wait()
			if !opens(ring, untouched) || !opens(untouched, ring) {
				t.Errorf("generation %d is by another master", ring.Status().Generation)
			}
			time.Sleep(rotation)
		}
	})
}

func TestABadMasterFileKeepsWhatIsInHand(t *testing.T) {
	keys := masterFile(t, "a")
	path := strings.TrimPrefix(keys, "file:")
	synctest.Test(t, func(t *testing.T) {
		log, output := logged()
		ring := mustOpen(t, Options{Keys: keys, Rotate: rotation, Log: log})
		other := mustOpen(t, Options{Keys: masterFile(t, "a"), Rotate: rotation})
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * rotation)
		synctest.Wait()
		if s := ring.Status(); s.Err == nil || s.Generation != s.Due || !s.Shared || s.Store != "file" {
			t.Errorf("without its file: %+v", s)
		}
		if !opens(ring, other) || !opens(other, ring) {
			t.Error("without its file a node does not share any more")
		}
		if n := strings.Count(output(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings, want one:\n%s", n, output())
		}
		ring.Reload()
		synctest.Wait()
		if n := strings.Count(output(), "level=WARN"); n != 2 {
			t.Errorf("%d warnings after a reload, want another one:\n%s", n, output())
		}

		if err := os.WriteFile(path, []byte(strings.Repeat("a", 64)), 0o644); err != nil {
			t.Fatal(err)
		}
		ring.Reload()
		synctest.Wait()
		if err := ring.Status().Err; err != nil {
			t.Error(err)
		}
		if !strings.Contains(output(), "can be read again") {
			t.Errorf("log: %s", output())
		}
	})
}

func TestAMasterSecretForEveryoneIsWarnedOf(t *testing.T) {
	keys := masterFile(t, "a")
	if err := os.Chmod(strings.TrimPrefix(keys, "file:"), 0o644); err != nil {
		t.Fatal(err)
	}
	log, output := logged()
	mustOpen(t, Options{Keys: keys, Log: log})
	if !strings.Contains(output(), "chmod o-r") {
		t.Errorf("log: %s", output())
	}
}
