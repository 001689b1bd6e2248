package tlsbridge

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

// FuzzRecordFeeding lets a real client talk to an echo server over a stream
// that is cut into reads of the sizes in cuts (again and again), and in which
// each three bytes of damage (a position, a mask) change one byte. Invariants:
//
//   - no panic, and nothing still waits when the peer has gone: neither a
//     goroutine nor a slot;
//   - the server sends whole TLS records only, and never the plaintext;
//   - what either side reads is a prefix of what was sent;
//   - without damage it is all of it, however the stream is cut.
func FuzzRecordFeeding(f *testing.F) {
	for _, cuts := range []string{"", "\x01", "\x05\x01", "\xff\x02\x10"} {
		for _, tls13 := range []bool{false, true} {
			f.Add(tls13, []byte(cuts), []byte{})
			f.Add(tls13, []byte(cuts), []byte{0, 0, 1})             // the first byte
			f.Add(tls13, []byte(cuts), []byte{0, 3, 0x40})          // the length of the first record
			f.Add(tls13, []byte(cuts), []byte{0, 6, 1, 0, 8, 0xff}) // that of the ClientHello
			f.Add(tls13, []byte(cuts), []byte{8, 0, 0xff})          // application data
		}
	}
	f.Fuzz(func(t *testing.T, tls13 bool, cuts, damage []byte) {
		version := uint16(tls.VersionTLS12)
		if tls13 {
			version = tls.VersionTLS13
		}
		synctest.Test(t, func(t *testing.T) { feed(t, version, cuts, damage) })
	})
}

var secret = strings.Repeat("MAIL FROM:<secret@example.org>\r\n", 100)

func feed(t *testing.T, version uint16, cuts, damage []byte) {
	var served []byte
	l, end := startLoop(t, tlstest.ServerConfig(), func(l *loop, link *loopLink, o *Options) {
		o.Timeout = time.Minute
		link.max = cutter(cuts)
		l.end.tx.keep = true
		l.serve = func(c *Conn, p []byte) error {
			served = append(served, p...)
			_, err := c.Write(p)
			return err
		}
	})
	var got []byte
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		client := tls.Client(&damager{Conn: end, damage: damage}, clientConfig(version))
		if _, failed = io.WriteString(client, secret); failed == nil {
			failed = client.CloseWrite()
		}
		if failed == nil {
			got, failed = io.ReadAll(client)
		}
	}()
	synctest.Wait() // as far as it goes
	end.Close()
	<-done
	_ = l.wait()

	if damaged := len(damage) >= 3; !damaged && (failed != nil || string(got) != secret) {
		t.Errorf("undamaged, but the client read %d bytes, %v; the server ended with %v", len(got), failed, l.err)
	}
	if !strings.HasPrefix(secret, string(got)) || !strings.HasPrefix(secret, string(served)) {
		t.Error("the plaintext has changed")
	}
	if s := l.slots.Stats().SlotCounts; s != (SlotCounts{}) {
		t.Errorf("slots not returned: %+v", s)
	}
	out := l.end.tx.written()
	if bytes.Contains(out, []byte("secret")) {
		t.Error("plaintext was sent")
	}
	for len(out) > 0 {
		if !recordReady(out) || out[0] < 20 || out[0] > 23 || out[1] != 3 || length(out) > maxCiphertext {
			t.Fatalf("no TLS record: % .20x", out)
		}
		out = out[recordHeader+length(out):]
	}
}

// cutter returns the sizes in cuts, one after the other; nothing is cut without any.
func cutter(cuts []byte) func() int {
	i := 0
	return func() int {
		if len(cuts) == 0 {
			return 1 << 20
		}
		i++
		return max(1, int(cuts[i%len(cuts)]))
	}
}

// damager changes bytes of what is written.
type damager struct {
	net.Conn
	damage []byte // (position, mask) of two bytes and one
	sent   int
}

func (d *damager) Write(p []byte) (int, error) {
	p = bytes.Clone(p)
	for m := d.damage; len(m) >= 3; m = m[3:] {
		if at := int(binary.BigEndian.Uint16(m)) - d.sent; at >= 0 && at < len(p) {
			p[at] ^= m[2]
		}
	}
	d.sent += len(p)
	return d.Conn.Write(p)
}
