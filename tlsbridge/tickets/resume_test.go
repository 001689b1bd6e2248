package tickets

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// masterFile returns the Keys of a file with a master secret made of letter.
func masterFile(t testing.TB, letter string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "master")
	writeMaster(t, path, letter)
	return "file:" + path
}

func writeMaster(t testing.TB, path, letter string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Repeat(letter, 64)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestASessionResumesOnAnotherNodeForTwoRotationsAndNotAfterThree(t *testing.T) {
	for _, version := range versions {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			keys := masterFile(t, "a")
			synctest.Test(t, func(t *testing.T) {
				one := mustOpen(t, Options{Keys: keys, Rotate: rotation, Now: skewed(-30 * time.Second)})
				two := mustOpen(t, Options{Keys: keys, Rotate: rotation, Now: skewed(30 * time.Second)})
				here, there := serve(one, "smtp"), serve(two, "smtp")
				time.Sleep(time.Until(time.Now().Truncate(rotation).Add(rotation + time.Minute)))

				client := newClient(version)
				if connect(t, client, here).DidResume {
					t.Fatal("resumed without a session")
				}
				for after := range 5 {
					synctest.Wait()
					for where, cfg := range map[string]*tls.Config{"where it began": here, "on the other node": there} {
						if got, want := connect(t, client, cfg).DidResume, after <= 2; got != want {
							t.Errorf("after %d rotations, %s: resumed = %v, want %v", after, where, got, want)
						}
					}
					time.Sleep(rotation)
				}
			})
		})
	}
}

func TestATicketOfAClockThatIsAheadResumes(t *testing.T) {
	keys := masterFile(t, "a")
	synctest.Test(t, func(t *testing.T) {
		ahead := mustOpen(t, Options{Keys: keys, Rotate: rotation, Now: skewed(time.Minute)})
		behind := mustOpen(t, Options{Keys: keys, Rotate: rotation})
		a, b := serve(ahead, "smtp"), serve(behind, "smtp")
		time.Sleep(time.Until(time.Now().Truncate(rotation).Add(rotation - time.Second)))
		synctest.Wait()
		if ahead.Status().Generation != behind.Status().Generation+1 {
			t.Fatal("both are in the same generation")
		}
		client := newClient(tls.VersionTLS13)
		connect(t, client, a)
		if !connect(t, client, b).DidResume {
			t.Error("the ticket of the next generation did not resume")
		}
	})
}

func TestATicketDoesNotResumeInAnotherScope(t *testing.T) {
	for _, version := range versions {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			ring := mustOpen(t, Options{})
			client := newClient(version)
			connect(t, client, serve(ring, "smtp"))
			if connect(t, client, serve(ring, "imap")).DidResume {
				t.Error("a session of smtp resumed in imap")
			}
			if !connect(t, client, serve(ring, "smtp")).DidResume {
				t.Error("a session of smtp did not resume there")
			}
		})
	}
}

func TestATicketDoesNotResumeWhereOtherClientsAreTrusted(t *testing.T) {
	for _, version := range versions {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			ring := mustOpen(t, Options{})
			trusting := func(scope string, cas *x509.CertPool) *tls.Config {
				cfg := serve(ring, scope)
				cfg.ClientAuth, cfg.ClientCAs = tls.VerifyClientCertIfGiven, cas
				return cfg
			}
			client := newClient(version)
			client.Certificates = []tls.Certificate{tlstest.ClientCertificate("a client")}
			connect(t, client, trusting("smtp|one", tlstest.Roots()))
			state := connect(t, client, trusting("smtp|one", tlstest.Roots()))
			if !state.DidResume || len(state.VerifiedChains) == 0 {
				t.Error("no session with the client's certificate in the same scope")
			}
			client.Certificates = nil // as a full handshake shows
			state = connect(t, client, trusting("smtp|two", x509.NewCertPool()))
			if state.DidResume || len(state.PeerCertificates) != 0 {
				t.Error("the client's certificate came from a session where it is not trusted")
			}
		})
	}
}

func TestNodesWithDifferentRotationsMerelyDoNotShare(t *testing.T) {
	keys := masterFile(t, "a")
	synctest.Test(t, func(t *testing.T) {
		one := mustOpen(t, Options{Keys: keys, Rotate: rotation})
		two := mustOpen(t, Options{Keys: keys, Rotate: 2 * rotation})
		client := newClient(tls.VersionTLS13)
		connect(t, client, serve(one, "smtp"))
		if connect(t, client, serve(two, "smtp")).DidResume {
			t.Error("resumed")
		}
	})
}

func TestOwnKeysRotateAndAreNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := mustOpen(t, Options{Keys: "auto"})
		two := mustOpen(t, Options{Keys: "auto"})
		if opens(one, two) {
			t.Error("two processes have the same keys")
		}
		cfg := serve(one, "smtp")
		client := newClient(tls.VersionTLS13)
		connect(t, client, cfg)
		start := one.Status()
		if start.Shared || start.Store != "auto" || start.Err != nil {
			t.Errorf("status: %+v", start)
		}
		time.Sleep(time.Until(start.Next))
		synctest.Wait()
		if s := one.Status(); s.Generation != start.Generation+1 || s.Generation != s.Due {
			t.Errorf("after a rotation: %+v, before it: %+v", s, start)
		}
		if !connect(t, client, cfg).DidResume {
			t.Error("did not resume after a rotation")
		}
		time.Sleep(3 * defaultRotate)
		synctest.Wait()
		if connect(t, client, cfg).DidResume {
			t.Error("resumed after three rotations more")
		}
		if n := len(one.snapshot()); n != past+2 {
			t.Errorf("%d secrets are kept", n)
		}
	})
}

func TestAClockThatIsSetDoesNotStopTheRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var by atomic.Int64
		ring := mustOpen(t, Options{Rotate: rotation, Now: func() time.Time { return time.Now().Add(time.Duration(by.Load())) }})
		for _, set := range []time.Duration{1000 * time.Hour, -time.Hour, 0, 1000 * time.Hour, 0} {
			synctest.Wait()
			by.Store(int64(set))
			time.Sleep(maxPoll)
			synctest.Wait()
			if s := ring.Status(); s.Generation != s.Due {
				t.Errorf("clock set by %v: generation %d, want %d", set, s.Generation, s.Due)
			}
		}
	})
}

func TestAConfigThatIsNoLongerUsedIsForgotten(t *testing.T) {
	ring := mustOpen(t, Options{})
	for range 100 {
		serve(ring, "smtp")
	}
	last := serve(ring, "smtp")
	ring.Serve("imap", last) // the same config is served once
	for range 10 {
		runtime.GC()
	}
	ring.Serve("imap", last)
	ring.mu.Lock()
	defer ring.mu.Unlock()
	if len(ring.served) > 1 {
		t.Errorf("%d configs are kept", len(ring.served))
	}
	runtime.KeepAlive(last)
}

func TestServingGoesOnDuringHandshakes(t *testing.T) {
	ring := mustOpen(t, Options{Rotate: minRotate})
	cfg := serve(ring, "smtp")
	client := newClient(tls.VersionTLS13)
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
		ring.Serve("smtp", cfg)
		ring.Reload()
		connect(t, client, cfg)
		_ = ring.Status()
	}
}

func TestOpenRefusesWhatItCannotUseAndSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	short := filepath.Join(dir, "short")
	if err := os.WriteFile(short, []byte("  "+strings.Repeat("x", 31)+"\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		keys   string
		rotate time.Duration
		want   string
	}{
		{"file:" + dir + "/none", 0, "openssl rand -base64 48"},
		{"file:" + short, 0, "32 bytes"},
		{"file:" + dir, 0, "is to be in a file"},
		{"auto", -1, "1s is the least"},
		{"auto", time.Millisecond, "1s is the least"},
		{"hunter2", 0, "file:PATH"},
		{"redis://", 0, "redis://[user:password@]host"},
		{"redis://:hunter2@/0", 0, "redis://[user:password@]host"},
		{"redis://u:hun/ter2@host/0", 0, "%XX"},
		{"redis://u:hunter2@host/zero", 0, "redis://[user:password@]host"},
		{"redis://u:hunter2@host/-1", 0, "redis://[user:password@]host"},
		{"redis://u:hunter2@host/0?a=b", 0, "redis://[user:password@]host"},
		{"redis:hunter2", 0, "redis://[user:password@]host"},
	} {
		t.Run(fmt.Sprint(tt.keys, tt.rotate), func(t *testing.T) {
			ring, err := Open(Options{Keys: tt.keys, Rotate: tt.rotate})
			if err == nil {
				ring.Close()
				t.Fatal("no error")
			}
			if s := err.Error(); !strings.Contains(s, tt.want) || strings.Contains(s, "hun") || strings.Contains(s, "\n") {
				t.Errorf("error is %q, want %q in it", s, tt.want)
			}
		})
	}
}
