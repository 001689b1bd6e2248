package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"starttlsd/bench/load"
	"starttlsd/bench/peers"
	"starttlsd/config"
)

// What the benchmarks report, where it makes sense:
//
//	ns/op         wall time of an operation, all connections together
//	server-ns/op  CPU time of the server's process for it, in ticks of 10 ms: a
//	              matter of 2,000 upgrades or messages, of 100,000 round trips
//	p99-ms        of an operation as its client sees it
//	errors        always 0, else the benchmark fails
//
// Server and client share the machine, so wall time compares servers and is
// none's capacity.

// tlsAxis are the versions and groups that go together.
var tlsAxis = []struct {
	version, group string
	id             uint16
	curve          tls.CurveID
}{
	{"1.2", "X25519", tls.VersionTLS12, tls.X25519},
	{"1.2", "P256", tls.VersionTLS12, tls.CurveP256},
	{"1.3", "X25519", tls.VersionTLS13, tls.X25519},
	{"1.3", "X25519MLKEM768", tls.VersionTLS13, tls.X25519MLKEM768},
	{"1.3", "P256", tls.VersionTLS13, tls.CurveP256},
}

func clientTLS(version uint16, group tls.CurveID) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true,
		MinVersion:         version,
		MaxVersion:         version,
		CurvePreferences:   []tls.CurveID{group},
	}
}

// tls13 is the client where TLS is not the matter.
func tls13() *tls.Config { return clientTLS(tls.VersionTLS13, tls.X25519) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// reportRun gives the metrics of b.N operations. Their time is the run's: opening
// the connections that they need is not a part of it.
func reportRun(b *testing.B, res *load.Result, rate string) {
	b.Helper()
	b.ReportMetric(float64(res.Took)/float64(b.N), "ns/op")
	b.ReportMetric(float64(res.PerOperation()), "server-ns/op")
	b.ReportMetric(milliseconds(res.Latency.Percentile(99)), "p99-ms")
	b.ReportMetric(res.Throughput(), rate)
	b.ReportMetric(float64(res.Failed()), "errors")
}

// BenchmarkUpgrade is an upgrade an operation: connect, greeting, STARTTLS,
// handshake, EHLO under TLS, QUIT. The floor is crypto/tls alone, without socket
// and server: its server-ns/op is what the others cannot go below. In its ns/op is
// the client too.
func BenchmarkUpgrade(b *testing.B) {
	for _, name := range append(serverNames, "floor") {
		for _, v := range tlsAxis {
			for _, resume := range []bool{false, true} {
				path := fmt.Sprintf("server=%s/tls=%s/group=%s/resume=%v", name, v.version, v.group, resume)
				cfg := func() *tls.Config {
					c := clientTLS(v.id, v.curve)
					if resume {
						c.ClientSessionCache = tls.NewLRUClientSessionCache(0)
					}
					return c
				}
				if name == "floor" {
					b.Run(path, func(b *testing.B) { floor(b, cfg()) })
					continue
				}
				for _, conns := range []int{1, 64} {
					b.Run(fmt.Sprintf("%s/conns=%d", path, conns), func(b *testing.B) {
						upgrades(b, launch(b, name, ""), cfg(), conns)
					})
				}
			}
		}
	}
}

func upgrades(b *testing.B, s *server, cfg *tls.Config, conns int) {
	o := load.Options{Mode: load.Upgrade, TLS: cfg, Connections: 1, Operations: 2}
	s.run(b, o) // also for a session to resume
	o.Connections, o.Operations = conns, int64(b.N)
	b.ResetTimer()
	res := s.run(b, o)
	if want := int64(b.N); cfg.ClientSessionCache != nil && res.Resumed != want {
		b.Errorf("%d of %d sessions were resumed", res.Resumed, want)
	}
	reportRun(b, res, "upgrades/s")
}

func floor(b *testing.B, cfg *tls.Config) {
	certs, err := config.Default().BuildTLS(slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		b.Fatal(err)
	}
	measure := func(n int) time.Duration {
		cpu, err := peers.Floor(n, certs.ServerConfig("smtp"), cfg)
		if errors.Is(err, errors.ErrUnsupported) {
			b.Skip("the CPU time of one thread needs Linux")
		}
		if err != nil {
			b.Fatal(err)
		}
		return cpu
	}
	measure(2)
	b.ResetTimer()
	b.ReportMetric(float64(measure(b.N)), "server-ns/op")
	b.ReportMetric(0, "errors")
}

const (
	idlers   = 1000
	idleTime = time.Second // for the server to come to rest
)

// BenchmarkIdle is what one of 1,000 idle connections holds: memory of the
// server's process, shared pages in proportion, after the garbage is collected,
// and goroutines. It runs once whatever b.N is, and so has no ns/op.
func BenchmarkIdle(b *testing.B) {
	for _, name := range serverNames {
		for _, state := range []struct {
			name    string
			options load.Options
		}{
			{"plain", load.Options{Plain: true}},
			{"upgraded", load.Options{}},
			{"record", load.Options{Size: 16 << 10}}, // of which each side has sent one
		} {
			b.Run(fmt.Sprintf("server=%s/state=%s", name, state.name), func(b *testing.B) {
				idle(b, launch(b, name, ""), state.options)
			})
		}
	}
}

func idle(b *testing.B, s *server, o load.Options) {
	o.TLS = tls13()
	s.run(b, load.Options{Mode: load.Upgrade, TLS: o.TLS, Connections: 2, Operations: 20}) // what a server takes once
	before, err := s.rest()
	if err != nil {
		b.Fatal(err)
	}
	type answer struct {
		goroutines int
		err        error
	}
	full := make(chan answer, 1)
	asked := false
	o.Mode, o.Connections, o.Duration, o.Quiet = load.Hold, idlers, idleTime, true
	o.Progress = func(done, of int64) {
		if done < of || asked {
			return
		}
		asked = true
		go func() {
			n, err := s.rest()
			full <- answer{n, err}
		}()
	}
	res := s.run(b, o)
	if b.Failed() {
		return
	}
	a := <-full
	if a.err != nil {
		b.Fatal(a.err)
	}
	b.ReportMetric(0, "ns/op") // leaves it out
	b.ReportMetric(float64(res.PerConnection()), "B/conn")
	b.ReportMetric(float64(a.goroutines-before)/idlers, "goroutines/conn")
	b.ReportMetric(float64(res.Failed()), "errors")
}

// BenchmarkChat is a command and its reply an operation, on established sessions.
func BenchmarkChat(b *testing.B) {
	for _, name := range serverNames {
		for _, version := range []string{"plain", "1.3"} {
			for _, conns := range []int{1, 100} {
				b.Run(fmt.Sprintf("server=%s/tls=%s/conns=%d", name, version, conns), func(b *testing.B) {
					s := launch(b, name, "")
					b.ResetTimer()
					reportRun(b, s.run(b, load.Options{Mode: load.Chat, TLS: tls13(), Plain: version == "plain",
						Connections: conns, Operations: int64(b.N)}), "rt/s")
				})
			}
		}
	}
}

// BenchmarkMail is a message an operation, over TLS into a Maildir in the
// directory for temporary files, by clients enough to keep a disk busy.
func BenchmarkMail(b *testing.B) {
	const clients = 16
	for _, name := range serverNames {
		for _, size := range []struct {
			name  string
			bytes int
		}{{"4KiB", 4 << 10}, {"1MiB", 1 << 20}} {
			b.Run(fmt.Sprintf("server=%s/size=%s", name, size.name), func(b *testing.B) {
				s := launch(b, name, b.TempDir())
				b.ResetTimer()
				reportRun(b, s.run(b, load.Options{Mode: load.Mail, TLS: tls13(), Size: size.bytes,
					Connections: clients, Operations: int64(b.N)}), "msg/s")
			})
		}
	}
}

// BenchmarkRelay is IMAP with STARTTLS in front of a stub. An operation of a download
// or an upload is a message of 1 MiB, on sessions that have logged in. Idle is what one
// of 1,000 sessions in IDLE holds, with its connection to the stub; see BenchmarkIdle.
func BenchmarkRelay(b *testing.B) {
	const size = 1 << 20
	login := load.Options{Mode: load.Transfer, TLS: tls13(), Size: size, User: "u", Password: "p"}
	for _, name := range serverNames {
		for _, way := range []string{"download", "upload"} {
			for _, conns := range []int{1, 64} {
				b.Run(fmt.Sprintf("load=%s/server=%s/conns=%d", way, name, conns), func(b *testing.B) {
					s := launchRelay(b, name, size)
					b.SetBytes(size)
					o := login
					o.Upload, o.Connections, o.Operations = way == "upload", conns, int64(b.N)
					b.ResetTimer()
					res := s.run(b, o)
					reportRun(b, res, "msg/s")
					b.ReportMetric(res.ByteRate()/1e6, "MB/s") // without the logins
				})
			}
		}
		b.Run("load=idle/server="+name, func(b *testing.B) {
			idle(b, launchRelay(b, name, size), load.Options{User: login.User, Password: login.Password})
		})
	}
}

const (
	flood     = 256
	floodTime = 700 * time.Millisecond // and as long before and after it
)

// BenchmarkStorm is what 50 established sessions see of 256 clients that upgrade
// again and again. An operation is one storm, about two seconds: few will do, such
// as -benchtime 3x. The flood's client takes its part of the machine, so during
// compares servers.
func BenchmarkStorm(b *testing.B) {
	for _, name := range serverNames {
		b.Run(fmt.Sprintf("server=%s/flood=%d", name, flood), func(b *testing.B) {
			storm(b, launch(b, name, ""))
		})
	}
}

func storm(b *testing.B, s *server) {
	phases := map[string]*load.Latency{"before": load.NewLatency(), "during": load.NewLatency(), "after": load.NewLatency()}
	var rate float64
	var failed int64
	for range b.N {
		res := s.run(b, load.Options{Mode: load.Storm, TLS: tls13(), Connections: flood, Sessions: 50, Duration: floodTime})
		for _, p := range res.Phases {
			phases[p.Name].Merge(p.Latency)
		}
		rate += res.Throughput() / float64(b.N)
		failed += res.Failed()
	}
	b.ReportMetric(0, "ns/op") // a matter of floodTime: leaves it out
	b.ReportMetric(milliseconds(phases["before"].Percentile(99)), "p99-before-ms")
	b.ReportMetric(milliseconds(phases["during"].Percentile(99)), "p99-ms")
	b.ReportMetric(milliseconds(phases["before"].Max()), "max-before-ms")
	b.ReportMetric(milliseconds(phases["during"].Max()), "max-ms")
	b.ReportMetric(rate, "upgrades/s")
	b.ReportMetric(float64(failed), "errors")
}
