package main

import (
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

// BenchmarkUpgrade is one whole upgrade an operation: connect, greeting,
// STARTTLS, handshake, EHLO under TLS, QUIT. Client and server share the
// process, so ns/op compares servers but is no server's cost by itself.
func BenchmarkUpgrade(b *testing.B) {
	for _, v := range []struct {
		name    string
		version uint16
	}{{"1.2", tls.VersionTLS12}, {"1.3", tls.VersionTLS13}} {
		for _, conns := range []int{1, 64} {
			for _, s := range servers {
				b.Run(fmt.Sprintf("tls=%s/conns=%d/server=%s", v.name, conns, s.name), func(b *testing.B) {
					cfg := tlstest.ClientConfig()
					cfg.MinVersion, cfg.MaxVersion = v.version, v.version
					cfg.CurvePreferences = []tls.CurveID{tls.X25519}
					upgrades(b, s.start(b, serverConfig()), cfg, conns)
				})
			}
		}
	}
}

// upgrades runs b.N of them on conns goroutines and reports p99 and errors.
func upgrades(b *testing.B, addr string, cfg *tls.Config, conns int) {
	took := make([]time.Duration, b.N)
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				began := time.Now()
				if err := upgradeOnce(addr, cfg); err != nil && failed.Add(1) == 1 {
					b.Log(err)
				}
				took[i] = time.Since(began)
			}
		}()
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(failed.Load()), "errors")
	if failed.Load() > 0 {
		b.Fail()
	}
}

func upgradeOnce(addr string, cfg *tls.Config) error {
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.upgrade(cfg); err != nil {
		return err
	}
	return c.do("QUIT\r\n", "221 ")
}
