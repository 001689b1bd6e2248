package engine

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"

	"starttlsd/tlsbridge/tlstest"
)

// partings are how a backend ends its control connection.
var partings = map[string]func(net.Conn){
	"good end": func(nc net.Conn) { _ = nc.Close() },
	"FIN":      func(nc net.Conn) { _ = socket(nc).CloseWrite() },
	"reset":    func(nc net.Conn) { _ = socket(nc).SetLinger(0); _ = socket(nc).Close() },
}

func socket(nc net.Conn) *net.TCPConn {
	if u, ok := nc.(*tls.Conn); ok {
		nc = u.NetConn()
	}
	return nc.(*net.TCPConn)
}

// backendEnds has the backend say its last words, and end as it does once they are here.
func (l *library) backendEnds(words string, end func(net.Conn), here func()) {
	said, now := make(chan struct{}), make(chan struct{})
	l.tell <- func(nc net.Conn) {
		_, _ = io.WriteString(nc, words)
		close(said)
		<-now
		end(nc)
	}
	<-said
	here()
	close(now)
}

// onLoopIs waits until the pair is on its loop, and as it has to be.
func (s *server) onLoopIs(what string, is func(*relay) bool) {
	s.t.Helper()
	eventually(s.t, what, func() (ok bool) {
		s.onLoop(func(c *conn) gnet.Action {
			ok = c.relay != nil && is(c.relay)
			return gnet.None
		})
		return ok
	})
}

func (l *library) backendEndsOnLoop(words string, end func(net.Conn)) {
	l.t.Helper()
	l.backendEnds(words, end, func() {
		l.onLoopIs("the last words", func(r *relay) bool { return r.held })
	})
	l.onLoopIs("the end of the backend", func(r *relay) bool { return r.link.gc == nil })
}

// lends has the pair lent, where it stays: its backend has ended.
func (l *library) lends() {
	l.t.Helper()
	l.onLoop(func(c *conn) gnet.Action {
		c.move = lend
		return c.settle()
	})
	l.lentPair("the pair lent, its backend gone", func(r *relay) bool { return r.downEnded })
}

// A backend that is done, and times its client out while that still reads, has not cut
// the download short.
func TestBackendThatEndsBehindItsReplyLeavesTheDownloadWhole(t *testing.T) {
	for name, end := range partings {
		t.Run(name, func(t *testing.T) {
			everyLibrary(t, func(t *testing.T, l *library) {
				for _, words := range []string{"-timed out", "-no backend"} {
					control, data, backend := l.download()
					said := "+done\r\n-timed out\r\n"
					if words == "-no backend" { // they are ours then
						said = "+done\r\n"
					}
					l.backendEndsOnLoop(said, end)
					l.arrives(data, backend)
					control.expect("+done", words)
					control.ended()
					_ = control.Close()
					eventually(t, "the end", func() bool { return l.eng.Stats().Open == 0 })
				}
			})
		})
	}
}

// And so it is for a pair that is lent.
func TestBackendThatEndsBehindItsReplyWhileLent(t *testing.T) {
	everyLibrary(t, func(t *testing.T, l *library) {
		control, data, backend := l.download()
		l.backendEndsOnLoop("+done\r\n-timed out\r\n", partings["FIN"])
		l.lends()
		l.arrives(data, backend)
		control.expect("+done", "-timed out")
		control.ended()
	})
}

// What fails meanwhile is said to have failed.
func TestDownloadThatFailsBehindTheBackendsEnd(t *testing.T) {
	for _, lent := range []bool{false, true} {
		everyLibrary(t, func(t *testing.T, l *library) {
			control, data, backend := l.download()
			l.backendEndsOnLoop("+done\r\n-timed out\r\n", partings["good end"])
			if lent {
				l.lends()
			}
			_ = backend.(*net.TCPConn).SetLinger(0)
			_ = backend.Close()
			if _, err := io.ReadAll(data); err == nil {
				t.Error("the download has ended as if it were whole")
			}
			control.expect("!backend", "-timed out")
			control.ended()
		})
	}
}

// A command to a backend that has ended is not waited for.
func TestAbortBehindTheBackendsEnd(t *testing.T) {
	for _, lent := range []bool{false, true} {
		everyLibrary(t, func(t *testing.T, l *library) {
			control, data, _ := l.download()
			l.backendEndsOnLoop("+done\r\n", partings["good end"])
			if lent {
				l.lends()
			}
			control.send("ABORT\r\n")
			control.expect("!none", "-no backend")
			control.ended()
			if _, err := io.ReadAll(data); err == nil {
				t.Error("the download has ended as if it were whole")
			}
		})
	}
}

// The engine's end does not wait for what is held back: see server.stop.
func TestDrainBehindTheBackendsEnd(t *testing.T) {
	for _, lent := range []bool{false, true} {
		everyLibrary(t, func(_ *testing.T, l *library) {
			_, _, _ = l.download()
			l.backendEndsOnLoop("+done\r\n", partings["good end"])
			if lent {
				l.lends()
			}
		})
	}
}

// A backend that ends without its reply has not said that the download is whole.
func TestBackendThatEndsWithoutItsReplyCutsTheDownloadShort(t *testing.T) {
	everyLibrary(t, func(t *testing.T, l *library) {
		for _, words := range []string{"", "+don"} {
			control, data, _ := l.download()
			l.backendEnds(words, partings["FIN"], func() {})
			control.expect("-no backend")
			control.ended()
			if _, err := io.ReadAll(data); err == nil {
				t.Error("the download has ended as if it were whole")
			}
			_ = control.Close()
			eventually(t, "the end", func() bool { return l.eng.Stats().Open == 0 })
		}
	})
}

// halfClosed is a download whose client ends its direction before the backend has heard of
// it: before it connects, or before it begins its handshake.
func (l *library) halfClosed(verb string) (control *client, data, backend net.Conn) {
	l.t.Helper()
	control, port := l.order(verb)
	if verb == "SGET" {
		data, backend = l.fetch(port)
		control.expect("+begin")
	}
	closeWrite(l.t, control.Conn)
	l.lentPair("the client's end", func(r *relay) bool { return r.upEnded })
	if verb == "GET" {
		data, backend = l.fetch(port)
	}
	return control, data, backend
}

// secured is the client's side of a data connection once the handshake is done, if there is one.
func (l *library) secured(verb string, data net.Conn) net.Conn {
	l.t.Helper()
	if verb != "SGET" {
		return data
	}
	tc := tls.Client(data, tlstest.ClientConfig())
	if err := tc.Handshake(); err != nil {
		l.t.Fatal(err)
	}
	return tc
}

// A client that has ended its direction still gets its file and its reply, and then the end.
func TestHalfClosedClientGetsItsDownload(t *testing.T) {
	for _, verb := range []string{"GET", "SGET"} {
		t.Run(verb, func(t *testing.T) {
			everyLibrary(t, func(t *testing.T, l *library) {
				control, data, backend := l.halfClosed(verb)
				data = l.secured(verb, data)
				<-l.asked
				l.tell <- func(nc net.Conn) {
					_, _ = io.WriteString(nc, "+done\r\n")
					_, _ = io.Copy(io.Discard, nc)
				}
				l.arrives(data, backend)
				control.expect("+done")
				control.ended()
			})
		})
	}
}

// Also when the backend ends meanwhile, behind its reply.
func TestHalfClosedClientOfABackendThatEnds(t *testing.T) {
	for name, end := range partings {
		t.Run(name, func(t *testing.T) {
			everyLibrary(t, func(t *testing.T, l *library) {
				control, data, backend := l.halfClosed("SGET")
				data = l.secured("SGET", data)
				<-l.asked
				l.backendEnds("+done\r\n", end, func() {
					l.lentPair("the last words", func(r *relay) bool { return r.held })
				})
				l.lentPair("the end of the backend", func(r *relay) bool { return r.downEnded })
				l.arrives(data, backend)
				control.expect("+done")
				control.ended()
			})
		})
	}
}

// Or has ended before.
func TestClientThatEndsBehindItsBackend(t *testing.T) {
	for name, end := range partings {
		t.Run(name, func(t *testing.T) {
			everyLibrary(t, func(t *testing.T, l *library) {
				control, data, backend := l.download()
				l.backendEndsOnLoop("+done\r\n", end)
				l.lends()
				closeWrite(t, control.Conn)
				l.lentPair("both ends", func(r *relay) bool { return r.upEnded })
				l.arrives(data, backend)
				control.expect("+done")
				control.ended()
			})
		})
	}
}

// One that has gone looks like it, and does not keep its port for long.
func TestClientThatHasGoneKeepsNoPort(t *testing.T) {
	everyLibrary(t, func(t *testing.T, l *library) {
		control, _ := l.order("GET")
		_ = control.Close()
		eventually(t, "the end", func() bool { return l.eng.Stats().Open == 0 })
	}, withLimits(Limits{Linger: 100 * time.Millisecond}))
}

// And it is told when there can be no transfer.
func TestHalfClosedClientIsToldOfItsFault(t *testing.T) {
	everyLibrary(t, func(_ *testing.T, l *library) {
		control, data, _ := l.halfClosed("SGET")
		_, _ = io.WriteString(data, "this is no TLS\r\n")
		control.expect("!tls")
		control.ended()
	})
}

// A download ends with its session as something that is not whole.
func TestDownloadIsCutShortWithItsSession(t *testing.T) {
	everyLibrary(t, func(t *testing.T, l *library) {
		for range 25 {
			control, data, _ := l.download()
			partings["reset"](control.Conn)
			if _, err := io.ReadAll(data); err == nil {
				t.Fatal("it has ended as if it were whole")
			}
		}
	})
}
