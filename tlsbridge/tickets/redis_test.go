package tickets

import (
	"crypto/tls"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

func TestARedisURLIsUnderstood(t *testing.T) {
	for _, tt := range []struct {
		url, addr, user, password string
		db                        int
		tls                       bool
	}{
		{"redis://host", "host:6379", "", "", 0, false},
		{"redis://host:7000/3", "host:7000", "", "", 3, false},
		{"redis://:p%40ss@host/1", "host:6379", "", "p@ss", 1, false},
		{"rediss://user:pass@[::1]:6380/", "[::1]:6380", "user", "pass", 0, true},
	} {
		o, err := redisOptions(tt.url)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		if o.Addr != tt.addr || o.Username != tt.user || o.Password != tt.password || o.DB != tt.db || (o.TLSConfig != nil) != tt.tls {
			t.Errorf("%s: %s, %s, %s, %d, %v", tt.url, o.Addr, o.Username, o.Password, o.DB, o.TLSConfig)
		}
	}
}

func TestOnlySecretsComeOutOfRedis(t *testing.T) {
	one, two := newSecret(), newSecret()
	got, err := decode(map[string]string{agreed + ".1": encode(two), agreed: encode(one), agreed + ".2": encode(one), "note": "x"})
	if err != nil || len(got) != 2 || got[0] != one || got[1] != two {
		t.Errorf("%v, %v", got, err)
	}
	for name, fields := range map[string]map[string]string{
		"nothing":         {},
		"none agreed on":  {agreed + ".1": encode(two)},
		"of another size": {agreed: encode(one) + encode(two)},
		"not base64":      {agreed: "x"},
	} {
		if got, err := decode(fields); len(got) != 0 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestAnUnreachableRedisDelaysNothingAndItsPasswordIsNotLogged(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	log, output := logged()
	begun := time.Now()
	ring := mustOpen(t, Options{Keys: "redis://user:hunter2@" + ln.Addr().String() + "/0", Log: log})
	if took := time.Since(begun); took > 2*pollTimeout {
		t.Errorf("Open waited for %v", took)
	}
	cfg := serve(ring, "smtp")
	client := newClient(tls.VersionTLS13)
	connect(t, client, cfg)
	if !connect(t, client, cfg).DidResume {
		t.Error("a session does not resume without Redis")
	}
	ring.Reload() // and Close does not wait for that
	time.Sleep(100 * time.Millisecond)
	begun = time.Now()
	ring.Close()
	if took := time.Since(begun); took > time.Second {
		t.Errorf("Close waited for %v", took)
	}
	if s := output(); !strings.Contains(s, "level=WARN") || strings.Contains(s, "hunter2") {
		t.Errorf("log: %s", s)
	}
}

// startRedis runs a server on port, with args added, until kill is called or the test ends.
func startRedis(t *testing.T, port string, args ...string) (kill func()) {
	t.Helper()
	cmd := exec.Command("redis-server", append([]string{"--bind", "127.0.0.1", "--port", port,
		"--dir", t.TempDir(), "--save", "", "--appendonly", "no"}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	enginetest.Listens(t, port)
	return kill
}

func TestInteropRedisSessionsResumeCrosswise(t *testing.T) {
	t.Parallel()
	enginetest.Need(t, "redis-server")
	port := enginetest.FreePort(t)
	startRedis(t, port, "--requirepass", "hunter2")
	for _, version := range versions {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			o := Options{Keys: "redis://:hunter2@127.0.0.1:" + port + "/1", Rotate: 2 * time.Second}
			one, two := mustOpen(t, o), mustOpen(t, o)
			here, there := serve(one, "smtp"), serve(two, "smtp")
			enginetest.Eventually(t, "the start of a generation", func() bool {
				a, b := one.Status(), two.Status()
				return a.Generation == a.Due && b.Generation == b.Due && time.Until(a.Next) > o.Rotate/2
			})
			client, back := newClient(version), newClient(version)
			connect(t, client, here)
			connect(t, back, there)
			begun := one.Status()
			for _, after := range []time.Duration{0, 1, 2} {
				time.Sleep(time.Until(begun.Next.Add((after-1)*o.Rotate + o.Rotate/4)))
				if !connect(t, client, there).DidResume || !connect(t, back, here).DidResume {
					t.Errorf("after %d rotations a session does not resume", after)
				}
				if s := one.Status(); s.Err != nil || !s.Shared || s.Due != begun.Generation+int64(after) {
					t.Errorf("after %d rotations: %+v", after, s)
				}
			}
			time.Sleep(2 * o.Rotate)
			if connect(t, client, there).DidResume || connect(t, back, here).DidResume {
				t.Error("after four rotations a session resumes")
			}
		})
	}
}

func TestInteropRedisMayRestartEmpty(t *testing.T) {
	t.Parallel()
	enginetest.Need(t, "redis-server")
	testRestart(t)
}

func TestInteropRedisMayRestartWithItsData(t *testing.T) {
	t.Parallel()
	enginetest.Need(t, "redis-server")
	testRestart(t, "--appendonly", "yes", "--appendfsync", "always", "--dir", t.TempDir())
}

func testRestart(t *testing.T, args ...string) {
	port := enginetest.FreePort(t)
	kill := startRedis(t, port, args...)
	log, output := logged()
	o := Options{Keys: "redis://127.0.0.1:" + port, Rotate: 3 * time.Second, Log: log}
	one, two := mustOpen(t, o), mustOpen(t, o)
	here, there := serve(one, "smtp"), serve(two, "smtp")
	enginetest.Eventually(t, "the second generation", func() bool { return len(one.snapshot()) == past+2 && len(two.snapshot()) == past+2 })

	kill()
	for end := time.Now().Add(2*o.Rotate + o.Rotate/2); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		mustResume(t, "without Redis", here, there)
	}
	if s := one.Status(); s.Err == nil || s.Generation == s.Due {
		t.Errorf("without Redis: %+v", s)
	}
	alone := mustOpen(t, o) // a node that starts without it
	startRedis(t, port, args...)
	for end := time.Now().Add(o.Rotate + o.Rotate/2); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		mustResume(t, "after Redis is back", here, there)
	}
	enginetest.Eventually(t, "rotation", func() bool {
		a, b, c := one.Status(), two.Status(), alone.Status()
		return a.Generation == a.Due && b.Generation == b.Due && c.Generation == c.Due && c.Shared
	})
	mustResume(t, "with a node that started without Redis", here, there, serve(alone, "smtp"))
	if !strings.Contains(output(), "can be read again") {
		t.Errorf("log: %s", output())
	}
}

// mustResume has every server resume a new session of every other.
func mustResume(t *testing.T, when string, servers ...*tls.Config) {
	t.Helper()
	for i, from := range servers {
		for j, to := range servers {
			client := newClient(tls.VersionTLS13)
			connect(t, client, from)
			if !connect(t, client, to).DidResume {
				t.Errorf("%s: a session of node %d does not resume on node %d", when, i, j)
			}
		}
	}
}

func TestInteropRedisHoldsNothingForLong(t *testing.T) {
	t.Parallel()
	enginetest.Need(t, "redis-server")
	port := enginetest.FreePort(t)
	startRedis(t, port)
	o := Options{Keys: "redis://127.0.0.1:" + port, Rotate: time.Second}
	ring := mustOpen(t, o)
	db, err := openRedis(o.Keys, o.Rotate)
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	keys := func() []string {
		all, err := db.db.Keys(t.Context(), "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if len(keys()) == 0 || !strings.HasPrefix(keys()[0], "starttlsd:tickets:1s:") {
		t.Errorf("keys: %v", keys())
	}
	ring.Close()
	enginetest.Eventually(t, "an empty Redis", func() bool { return len(keys()) == 0 })
}

func TestInteropRedisOverTLS(t *testing.T) {
	t.Parallel()
	enginetest.Need(t, "redis-server")
	cert, key := tlstest.WritePEM(t.TempDir(), tlstest.ServerConfig().Certificates[0])
	port := enginetest.FreePort(t)
	startRedis(t, port, "--port", "0", "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
	o := Options{Keys: "rediss://127.0.0.1:" + port, Rotate: rotation}

	stranger := mustOpen(t, o)
	if err := stranger.Status().Err; err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("by a CA that is not trusted: %v", err)
	}
	var nodes [2]*Ring
	for i := range nodes {
		db, err := openRedis(o.Keys, o.Rotate)
		if err != nil {
			t.Fatal(err)
		}
		db.db.Options().TLSConfig.RootCAs = tlstest.Roots()
		nodes[i] = open(Options{Rotate: o.Rotate, Log: slog.New(slog.DiscardHandler)}, newShared(db, maxPoll))
		t.Cleanup(nodes[i].Close)
		if s := nodes[i].Status(); s.Err != nil || !s.Shared {
			t.Errorf("status: %+v", s)
		}
	}
	mustShare(t, "over TLS", nodes[:]...)
}
