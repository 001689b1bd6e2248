package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
)

// unreading is a client whose control connection is blocked by what it does not read,
// on a goroutine, when its transfer fails.
func unreading(t *testing.T, addr string) {
	t.Helper()
	c := ftpLogin(t, addr, tls.VersionTLS13)
	tc := c.begin("RETR flood")
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.CopyN(io.Discard, c.r, 8<<20) // the pair is lent; then nothing is read
	time.Sleep(500 * time.Millisecond)
	_ = tc.NetConn().(*net.TCPConn).SetLinger(0)
	_ = tc.NetConn().Close()
	time.Sleep(200 * time.Millisecond)
}

// A client that does not read keeps nobody waiting: not others, not the end.
func TestFTPUnreadingClientIsItsOwnProblem(t *testing.T) {
	_, p := startFTP(t, "", "limits: {data_stall: 40s, linger: 1s}\ndrain: 200ms\n")
	bystander := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	unreading(t, p.Addrs[0])
	bystander.ask(ask{"QUIT\r\n", "^221"}) // ends a pair, on the loop
	began := time.Now()
	talk(t, ftpDialect, p.Addrs[0]).greeted()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a new client is greeted after %v", took)
	}
	began = time.Now()
	p.Stop()
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the end takes %v", took)
	}
}

// F43: what is not read is not kept, and not for ever.
func TestFTPUnreadingClientIsClosed(t *testing.T) {
	_, p := startFTP(t, "", "limits: {data_stall: 1s, linger: 200ms}\n")
	before := p.Usage().PSS
	for range 10 {
		c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
		go func() {
			for range 100_000 {
				if _, err := io.WriteString(c.Conn, "STAT\r\n"); err != nil {
					return
				}
			}
		}()
	}
	enginetest.Eventually(t, "the end of all ten", func() bool { return strings.Count(p.Log(), "reason=output_timeout") == 10 })
	if grown := p.Usage().PSS - before; grown > 16<<20 {
		t.Errorf("memory has grown by %d MiB", grown>>20)
	}
}

// Data connections that a client leaves open when all was said are not many.
func TestFTPLeftOpenDataConnectionsDoNotAddUp(t *testing.T) {
	s, p := startFTP(t, "", "")
	s.files["f"] = []byte("content")
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	before, most := p.Usage().Descriptors, 0
	for began := time.Now(); time.Since(began) < 1500*time.Millisecond; {
		if _, err := io.ReadAll(c.begin("RETR f")); err != nil {
			t.Fatal(err)
		}
		c.until("^226 ")
		most = max(most, p.Usage().Descriptors)
	}
	if most > before+150 {
		t.Errorf("%d descriptors, and %d before", most, before)
	}
}

// A file that was reported complete arrives, whatever becomes of the server.
func TestFTPCompleteDownloadOutlivesTheServer(t *testing.T) {
	s, p := startFTP(t, ", require_tls: control", "drain: 0s\n")
	s.files["f"] = make([]byte, 1<<20)
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	c.ask(ask{"PROT C\r\n", "^200"})
	d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		return rc.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 64<<10) })
	}}
	nc, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.epsv()))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c.ask(ask{"RETR f\r\n", "^150"})
	c.until("^226 ")
	p.Stop()
	if n, err := io.Copy(io.Discard, nc); n != 1<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// A part is not the whole, even when we are killed.
func TestFTPKilledInAnUpload(t *testing.T) {
	s, p := startFTP(t, "", "")
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	_, _ = c.begin("STOR f").Write(make([]byte, 100_000))
	time.Sleep(200 * time.Millisecond)
	p.Kill()
	enginetest.Eventually(t, "the end of the upload", func() bool { _, _, ok := s.upload("f"); return ok })
	if content, torn, _ := s.upload("f"); torn == nil {
		t.Errorf("the server takes %d bytes for a file", len(content))
	}
}

// Who is refused on a data connection is told so by TLS too.
func TestFTPAlertOfARefusedDataConnectionArrives(t *testing.T) {
	s, p := startFTP(t, "", "")
	s.files["f"] = []byte("secret")
	for range 5 {
		c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
		nc := c.dialData(c.epsv(), "127.0.0.1")
		c.ask(ask{"RETR f\r\n", "^150"})
		tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
		_ = tc.Handshake()
		c.until("^522 ")
		time.Sleep(50 * time.Millisecond)
		var alert tls.AlertError
		if _, err := tc.Read(make([]byte, 1)); !errors.As(err, &alert) && (err == nil || !strings.Contains(err.Error(), "bad certificate")) {
			t.Errorf("the client sees %v", err)
		}
	}
}

// The time until login is for the first one: later a user may change.
func TestFTPLoginAgain(t *testing.T) {
	_, p := startFTP(t, "", "limits: {login: 500ms}\n")
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	time.Sleep(700 * time.Millisecond)
	c.ask(ask{"USER other\r\n", "^331"})
	time.Sleep(300 * time.Millisecond)
	c.ask(ask{"PASS other\r\n", "^230"})
	c.ask(ask{"QUIT\r\n", "^221"})
	late := talk(t, ftpDialect, p.Addrs[0]).greeted()
	if rest, err := io.ReadAll(late.r); string(rest) != "421 Timed out\r\n" || err != nil {
		t.Errorf("without a login: %q, %v", rest, err)
	}
}

// Who is exempt from the limits of a client is so on data connections too.
func TestFTPSilentDataConnectionsOfLoopback(t *testing.T) {
	_, p := startFTP(t, "", "limits: {handshakes_waiting: 8}\n")
	for range 4 {
		c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
		c.dialData(c.epsv(), "127.0.0.1")
		c.ask(ask{"STOR f\r\n", "^150"}) // no ClientHello follows
	}
}

// Whatever clients do, every command is answered, and nothing is left of them.
func TestFTPChaos(t *testing.T) {
	s, p := startFTP(t, "", "limits: {data_connect: 500ms, handshake: 1s, linger: 1s}\n")
	s.files["small"], s.files["big"] = []byte("content"), make([]byte, 3<<20)
	before := p.Usage().Descriptors
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
				c := ftpLogin(t, p.Addrs[0], versions[r.IntN(2)])
				for range 8 {
					if !chaos(c, r) {
						return
					}
				}
				_ = c.Conn.(*tls.Conn).NetConn().Close()
			}
		})
	}
	wg.Wait()
	enginetest.Eventually(t, "all descriptors back", func() bool { return p.Usage().Descriptors <= before })
	if n := p.Goroutines(); n > 80 {
		t.Errorf("%d goroutines are left", n)
	}
}

// chaos is one transfer that may go wrong anywhere.
func chaos(c *ftpClient, r *rand.Rand) bool {
	c.send("EPSV\r\n")
	var port int
	_, text, _ := strings.Cut(c.until(c.d.final), "(|||")
	if _, err := fmt.Sscanf(text, "%d|)", &port); err != nil {
		return true
	}
	command := []string{"RETR small", "RETR big", "STOR x", "RETR none"}[r.IntN(4)]
	want, abort := 1, r.IntN(4) == 0
	text = command + "\r\n"
	if r.IntN(4) == 0 {
		n := r.IntN(4000)
		text, want = text+strings.Repeat("NOOP\r\n", n), want+n
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	comes, late, how := r.IntN(8) > 0, time.Duration(r.IntN(20))*time.Millisecond, r.IntN(5)
	if comes {
		wg.Go(func() {
			time.Sleep(late)
			mistreat(c, port, strings.HasPrefix(command, "STOR"), how)
		})
	}
	if r.IntN(2) == 0 {
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
	}
	c.send(text)
	if abort {
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
		c.send("ABOR\r\n")
		want++
	}
	for want > 0 {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Errorf("%s: %d replies are missing: %v", command, want, err)
			return false
		}
		if line[0] != '1' {
			want--
		}
	}
	return true
}

// mistreat is a data connection that ends in its own way.
func mistreat(c *ftpClient, port int, up bool, how int) {
	nc, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	tc := tls.Client(nc, c.cfg)
	switch {
	case how == 0:
		_ = nc.(*net.TCPConn).SetLinger(0)
	case how == 1:
		_ = tc.Handshake()
		_ = nc.(*net.TCPConn).SetLinger(0)
	case up:
		_, _ = tc.Write(make([]byte, 200_000))
		if how == 2 {
			_ = tc.CloseWrite()
		}
		_ = nc.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, nc)
	default:
		_, _ = io.Copy(io.Discard, bufio.NewReader(tc))
	}
}
