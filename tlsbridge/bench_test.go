package tlsbridge

import (
	"crypto/tls"
	"fmt"
	"io"
	"testing"

	"starttlsd/tlsbridge/tlstest"
)

// BenchmarkHandshake runs whole handshakes in memory, client included: over the
// bridge, and on a goroutine that blocks as the baseline.
func BenchmarkHandshake(b *testing.B) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, group := range []tls.CurveID{tls.X25519, tls.CurveP256, tls.X25519MLKEM768} {
			if version == tls.VersionTLS12 && group == tls.X25519MLKEM768 {
				continue // TLS 1.3 only
			}
			for _, via := range []string{"bridge", "goroutine"} {
				b.Run(fmt.Sprintf("tls=%s/group=%v/via=%s", tls.VersionName(version)[4:], group, via), func(b *testing.B) {
					cfg, ccfg := tlstest.ServerConfig(), clientConfig(version)
					cfg.CurvePreferences = []tls.CurveID{group}
					ccfg.CurvePreferences = cfg.CurvePreferences
					b.ReportAllocs()
					for b.Loop() {
						if via == "bridge" {
							bridgeHandshake(b, cfg, ccfg)
						} else {
							goroutineHandshake(b, cfg, ccfg)
						}
					}
				})
			}
		}
	}
}

func bridgeHandshake(b *testing.B, cfg, ccfg *tls.Config) {
	r := newRig(b, cfg, DefaultSlots, Options{})
	done := make(chan error)
	go func() { done <- tls.Client(r.client, ccfg).Handshake() }()
	if err := r.pump(r.over); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

func goroutineHandshake(b *testing.B, cfg, ccfg *tls.Config) {
	client, server := newWire()
	done := make(chan error)
	go func() { done <- tls.Client(client, ccfg).Handshake() }()
	if err := tls.Server(server, cfg).Handshake(); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRead reads messages that one event has brought, until it would
// block. The time of the client that encrypts them is not counted.
func BenchmarkRead(b *testing.B) {
	const batch = 64
	for _, size := range []int{40, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			r, client := secure(b, tls.VersionTLS13)
			message, p := make([]byte, size), make([]byte, 16<<10)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += batch {
				b.StopTimer()
				for range batch {
					if err := writeAll(client, message); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				for {
					if _, err := r.conn.Read(p); err == ErrWouldBlock {
						break
					} else if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkIdleRead is the cost of an event that brings no whole record.
func BenchmarkIdleRead(b *testing.B) {
	r, _ := secure(b, tls.VersionTLS13)
	p := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.conn.Read(p); err != ErrWouldBlock {
			b.Fatal(err)
		}
	}
}

// BenchmarkEcho is one command and its reply on the loop's side, client included.
func BenchmarkEcho(b *testing.B) {
	r, client := secure(b, tls.VersionTLS13)
	p, reply := make([]byte, 1024), make([]byte, 6)
	b.ReportAllocs()
	for b.Loop() {
		_ = writeAll(client, []byte("NOOP\r\n"))
		n, err := r.conn.Read(p)
		if err == nil {
			_, err = r.conn.Write(p[:n])
		}
		if err == nil {
			_, err = io.ReadFull(client, reply)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWrite encrypts a message into one record, which nobody reads.
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{40, 1 << 10, 16 << 10} {
		for _, via := range []string{"bridge", "goroutine"} {
			b.Run(fmt.Sprintf("size=%d/via=%s", size, via), func(b *testing.B) {
				w, wire := writer(b, via)
				message := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if err := writeAll(w, message); err != nil {
						b.Fatal(err)
					}
					wire.clear()
				}
			})
		}
	}
}

// writer is the server's side of a secured connection, and what it writes to.
func writer(b *testing.B, via string) (io.Writer, *stream) {
	if via == "bridge" {
		r, _ := secure(b, tls.VersionTLS13)
		return r.conn, r.server.tx
	}
	client, server := newWire()
	cfg, done := clientConfig(tls.VersionTLS13), make(chan error)
	go func() { done <- tls.Client(client, cfg).Handshake() }()
	tc := tls.Server(server, tlstest.ServerConfig())
	if err := tc.Handshake(); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return tc, server.tx
}

func (s *stream) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Reset()
}
