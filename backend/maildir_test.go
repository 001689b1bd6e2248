package backend

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"starttlsd/codec/smtp"
)

func openMaildir(t testing.TB, path string) *Maildir {
	t.Helper()
	m, err := OpenMaildir(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func begin(t testing.TB, m *Maildir) *message {
	t.Helper()
	msg, err := m.Begin(nil)
	if err != nil {
		t.Fatal(err)
	}
	return msg.(*message)
}

func write(t testing.TB, msg smtp.Message, body []byte) {
	t.Helper()
	if n, err := msg.Write(body); n != len(body) || err != nil {
		t.Fatalf("Write = %d, %v; want %d, nil", n, err, len(body))
	}
}

// files lists a directory.
func files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// checkCounts checks how many files are in tmp/ and in new/.
func checkCounts(t testing.TB, m *Maildir, inTmp, inNew int) {
	t.Helper()
	if got := files(t, m.tmp); len(got) != inTmp {
		t.Errorf("tmp/ has %q, want %d files", got, inTmp)
	}
	if got := files(t, m.new); len(got) != inNew {
		t.Errorf("new/ has %q, want %d files", got, inNew)
	}
}

// checkDead checks that msg answers everything with the error why and leaves nothing.
func checkDead(t testing.TB, m *Maildir, msg smtp.Message, why error) {
	t.Helper()
	if n, err := msg.Write([]byte("more")); n != 0 || !errors.Is(err, why) {
		t.Errorf("Write = %d, %v; want 0, %v", n, err, why)
	}
	if err := msg.Commit(); !errors.Is(err, why) {
		t.Errorf("Commit = %v, want %v", err, why)
	}
	msg.Abort()
	checkCounts(t, m, 0, 0)
}

// checkServes delivers a message and takes it away again.
func checkServes(t testing.TB, m *Maildir) {
	t.Helper()
	msg := begin(t, m)
	write(t, msg, []byte("Subject: still here\r\n\r\n"))
	if err := msg.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(m.new, msg.name)); err != nil {
		t.Fatal(err)
	}
}

func TestDeliversByteForByte(t *testing.T) {
	m := openMaildir(t, t.TempDir())
	body := make([]byte, 300_000)
	rng := rand.NewChaCha8([32]byte{})
	rng.Read(body)
	for _, chunk := range []int{1, 7, 4096, 65537, len(body)} {
		want := body
		if chunk < 100 {
			want = body[:10_000]
		}
		msg := begin(t, m)
		for i := 0; i < len(want); i += chunk {
			write(t, msg, want[i:min(i+chunk, len(want))])
		}
		if err := msg.Commit(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(m.new, msg.name)
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("chunks of %d: delivered %d bytes that differ from the %d sent", chunk, len(got), len(want))
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("mode = %v, %v; want 0600", info.Mode(), err)
		}
	}
	checkCounts(t, m, 0, 5)
}

func TestNothingIsInNewBeforeCommit(t *testing.T) {
	m := openMaildir(t, t.TempDir())
	msg := begin(t, m)
	checkCounts(t, m, 1, 0)
	write(t, msg, []byte("half a message"))
	checkCounts(t, m, 1, 0)
	if err := msg.Commit(); err != nil {
		t.Fatal(err)
	}
	checkCounts(t, m, 0, 1)
}

func TestAbortLeavesNothing(t *testing.T) {
	m := openMaildir(t, t.TempDir())
	msg := begin(t, m)
	write(t, msg, []byte("half a message"))
	msg.Abort()
	checkDead(t, m, msg, errOver)
}

func TestAbortAfterCommitKeepsTheMessage(t *testing.T) {
	m := openMaildir(t, t.TempDir())
	msg := begin(t, m)
	write(t, msg, []byte("a message"))
	if err := msg.Commit(); err != nil {
		t.Fatal(err)
	}
	msg.Abort()
	if err := msg.Commit(); !errors.Is(err, errOver) {
		t.Errorf("second Commit = %v, want %v", err, errOver)
	}
	checkCounts(t, m, 0, 1)
}

func TestConcurrentDeliveriesHaveNamesOfTheirOwn(t *testing.T) {
	const deliveries = 100
	m := openMaildir(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range deliveries {
		wg.Go(func() {
			msg, err := m.Begin(nil)
			if err != nil {
				t.Error(err)
				return
			}
			for range 3 {
				if _, err := msg.Write([]byte{byte(i)}); err != nil {
					t.Error(err)
				}
			}
			if err := msg.Commit(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	checkCounts(t, m, 0, deliveries)
	seen := make(map[byte]bool)
	for _, name := range files(t, m.new) {
		body, err := os.ReadFile(filepath.Join(m.new, name))
		if err != nil {
			t.Fatal(err)
		}
		if len(body) != 3 || body[0] != body[1] || body[0] != body[2] || seen[body[0]] {
			t.Errorf("%s: body %v is mixed or delivered twice", name, body)
		}
		seen[body[0]] = true
	}
}

func TestHostIsEscapedInNames(t *testing.T) {
	m := &Maildir{host: escapeHost("a/b:c.example")}
	if name, want := m.uniqueName(), `.a\057b\072c.example`; !strings.HasSuffix(name, want) {
		t.Errorf("name %q does not end in %q", name, want)
	}
}

func TestOpenMakesAPrivateMaildir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drop")
	for range 2 { // the second finds everything in place
		checkServes(t, openMaildir(t, path))
	}
	for _, dir := range []string{"", "tmp", "new", "cur"} {
		info, err := os.Stat(filepath.Join(path, dir))
		if err != nil || info.Mode() != fs.ModeDir|0o700 {
			t.Errorf("%q: mode %v, %v; want drwx------", dir, info.Mode(), err)
		}
	}
}

func TestOpenNamesTheDirectoryAtFault(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(dir, "half")
	if err := os.Mkdir(half, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(half, "new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                                  "maildir: access " + file + ": not a directory",
		half:                                  "maildir: access " + half + "/new: not a directory",
		filepath.Join(dir, "missing", "drop"): "maildir: mkdir " + dir + "/missing/drop: no such file or directory",
	} {
		if _, err := OpenMaildir(path); err == nil || err.Error() != want {
			t.Errorf("OpenMaildir(%s)\n got %v\nwant %s", path, err, want)
		}
	}
}

func TestOpenRemovesOnlyStaleDeliveries(t *testing.T) {
	path := t.TempDir()
	m := openMaildir(t, path)
	old := time.Now().Add(-staleAge - time.Minute)
	put := func(name string, modified time.Time) {
		t.Helper()
		name = filepath.Join(path, name)
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
	put("tmp/stale", old)
	put("tmp/young", old.Add(2*time.Minute))
	put("tmp/.keep", old)
	put("new/message", old)
	put("cur/message:2,S", old)
	if err := os.Mkdir(filepath.Join(m.tmp, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(m.tmp, "folder"), old, old); err != nil {
		t.Fatal(err)
	}

	openMaildir(t, path)
	if got := strings.Join(files(t, m.tmp), " "); got != ".keep folder young" {
		t.Errorf("tmp/ has %s", got)
	}
	if len(files(t, m.new)) != 1 || len(files(t, filepath.Join(path, "cur"))) != 1 {
		t.Error("a delivered message was removed")
	}
}

func TestOpenMessageCostsOneDescriptorAndNoneIsLost(t *testing.T) {
	m := openMaildir(t, t.TempDir())
	if runtime.GOOS == "freebsd" {
		t.Skip("/dev/fd lists only three descriptors without fdescfs")
	}
	before := len(files(t, "/dev/fd"))
	var open []*message
	for range 30 {
		open = append(open, begin(t, m))
	}
	if got := len(files(t, "/dev/fd")); got != before+30 {
		t.Errorf("30 open messages hold %d descriptors", got-before)
	}
	for i, msg := range open {
		switch i % 3 {
		case 0:
			msg.Abort()
		case 1:
			if err := msg.Commit(); err != nil {
				t.Error(err)
			}
		case 2:
			os.Remove(msg.path())
			if err := msg.Commit(); err == nil {
				t.Error("Commit of a file that is gone succeeded")
			}
		}
	}
	if got := len(files(t, "/dev/fd")); got != before {
		t.Errorf("%d descriptors, %d before", got, before)
	}
	if got := len(m.calls); got != 0 {
		t.Errorf("%d of the places for file calls are lost", got)
	}
}

func TestWriteDoesNotAllocate(t *testing.T) {
	m := openMaildir(t, t.TempDir())
	msg := begin(t, m)
	defer msg.Abort()
	line := []byte("a line of the message\r\n")
	if n := testing.AllocsPerRun(100, func() { write(t, msg, line) }); n != 0 {
		t.Errorf("Write allocates %v times", n)
	}
}
