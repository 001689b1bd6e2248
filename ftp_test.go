package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
)

// startFTP is a starttlsd in front of an FTP server, with more for its listener.
func startFTP(t *testing.T, more, global string) (*ftpServer, *enginetest.Process) {
	t.Helper()
	s := startFTPServer(t)
	return s, enginetest.Start(t, enginetest.Config{YAML: fmt.Sprintf(
		"listeners:\n  - {address: '127.0.0.1:0', protocol: ftp, backend: 'tcp://%s'%s}\n%s", s.addr, more, global)})
}

func TestFTPFilesArriveAsTheyAre(t *testing.T) {
	s, p := startFTP(t, "", "")
	for _, version := range versions {
		c := ftpLogin(t, p.Addrs[0], version)
		for _, size := range []int{0, 1, 16 << 10, 1<<20 + 1} {
			content := make([]byte, size)
			_, _ = rand.Read(content)
			if reply := c.store("f", content); !strings.HasPrefix(reply, "226") {
				t.Errorf("an upload of %d bytes is answered %q", size, reply)
			}
			if got, torn, _ := s.upload("f"); !bytes.Equal(got, content) || torn != nil {
				t.Errorf("of %d bytes %d have arrived, %v", size, len(got), torn)
			}
			if got, reply := c.retrieve("f"); !bytes.Equal(got, content) || !strings.HasPrefix(reply, "226") {
				t.Errorf("of %d bytes %d have come back: %q", size, len(got), reply)
			}
		}
		c.ask(ask{"QUIT\r\n", "^221"})
	}
}

// The whole session in single bytes (test 11).
func TestFTPTrickledSession(t *testing.T) {
	_, p := startFTP(t, "", "")
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	c.Conn = trickle{c.Conn}
	content := []byte("little by little\r\n")
	if reply := c.store("f", content); !strings.HasPrefix(reply, "226") {
		t.Error(reply)
	}
	if got, reply := c.retrieve("f"); !bytes.Equal(got, content) || !strings.HasPrefix(reply, "226") {
		t.Errorf("%q, %q", got, reply)
	}
}

// A part is never taken for the whole: not by the server, and not by the client.
func TestFTPTruncatedUploadIsAborted(t *testing.T) {
	s, p := startFTP(t, "", "")
	for name, end := range map[string]func(*tls.Conn){
		"fin":   func(tc *tls.Conn) { _ = tc.NetConn().(*net.TCPConn).CloseWrite() },
		"reset": func(tc *tls.Conn) { _ = tc.NetConn().(*net.TCPConn).SetLinger(0); _ = tc.NetConn().Close() },
		"plaintext": func(tc *tls.Conn) {
			_, _ = tc.NetConn().Write([]byte("the rest in clear"))
			_ = tc.NetConn().(*net.TCPConn).CloseWrite()
		},
	} {
		c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
		tc := c.begin("STOR " + name)
		_, _ = tc.Write(make([]byte, 100_000))
		enginetest.Eventually(t, "the server's part", func() bool { return s.commands("STOR "+name) > 0 })
		end(tc)
		if reply := c.until(c.d.final); !strings.HasPrefix(reply, "426") {
			t.Errorf("%s: %q", name, reply)
		}
		if _, torn, _ := s.upload(name); !errors.Is(torn, syscall.ECONNRESET) {
			t.Errorf("%s: the server has seen %v, want a reset", name, torn)
		}
		c.ask(ask{"NOOP\r\n", "^200"})
	}
}

// F20: a close_notify in the dialogue ends it, and what follows in clear is nothing.
func TestFTPNoWayBackToPlaintext(t *testing.T) {
	s, p := startFTP(t, "", "")
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	raw := c.Conn.(*tls.Conn).NetConn()
	_ = c.Conn.(*tls.Conn).CloseWrite()
	_, _ = raw.Write([]byte("DELE f\r\n"))
	_ = raw.(*net.TCPConn).CloseWrite()
	_, _ = io.ReadAll(raw)
	if s.commands("DELE") > 0 {
		t.Error("a command in clear was passed on")
	}
}

// What does not resume the session of its own control connection does not pass.
func TestFTPDataConnectionResumesItsControlConnection(t *testing.T) {
	s, p := startFTP(t, "", "")
	s.files["f"] = []byte("secret")
	for _, version := range versions {
		victim, thief := ftpLogin(t, p.Addrs[0], version), ftpLogin(t, p.Addrs[0], version)
		for name, cfg := range map[string]*tls.Config{
			"no session":             {InsecureSkipVerify: true, MaxVersion: version},
			"another user's session": thief.cfg,
		} {
			nc := victim.dialData(victim.epsv(), "127.0.0.1")
			victim.ask(ask{"RETR f\r\n", "^150"})
			got, err := io.ReadAll(tls.Client(nc, cfg))
			if len(got) > 0 || err == nil {
				t.Errorf("%s: got %q, %v", name, got, err)
			}
			if reply := victim.until(victim.d.final); !strings.HasPrefix(reply, "522") {
				t.Errorf("%s: %q", name, reply)
			}
		}
		if got, reply := victim.retrieve("f"); string(got) != "secret" || !strings.HasPrefix(reply, "226") {
			t.Errorf("its own session: %q, %q", got, reply)
		}
	}
	_, other := startFTP(t, ", data_session: address", "")
	c := ftpLogin(t, other.Addrs[0], tls.VersionTLS13)
	c.cfg = &tls.Config{InsecureSkipVerify: true}
	if reply := c.store("f", []byte("x")); !strings.HasPrefix(reply, "226") {
		t.Errorf("data_session: address: %q", reply)
	}
}

// unchanged is a cache that keeps the session that it has.
type unchanged struct{ tls.ClientSessionCache }

func (unchanged) Put(string, *tls.ClientSessionState) {}

// A session may last for longer than the keys of tickets do.
func TestFTPDataConnectionsOutliveTheTicketKeys(t *testing.T) {
	s, p := startFTP(t, "", "tls: {session_tickets: {rotate: 1s}}\n")
	s.files["f"] = []byte("content")
	transfers := func(what string, c *ftpClient) {
		if got, reply := c.retrieve("f"); string(got) != "content" || !strings.HasPrefix(reply, "226") {
			t.Errorf("%s: %q, %q", what, got, reply)
		}
	}
	var first, silent []*ftpClient
	for _, version := range versions {
		c := ftpLogin(t, p.Addrs[0], version)
		c.cfg.ClientSessionCache = unchanged{c.cfg.ClientSessionCache}
		first = append(first, c)
		silent = append(silent, ftpLogin(t, p.Addrs[0], version))
	}
	for range 4 { // a ticket of the keys lasts for less than three rotations
		for i, c := range first {
			transfers(tls.VersionName(versions[i])+", by the ticket of the control connection", c)
		}
		time.Sleep(900 * time.Millisecond)
	}
	text, _ := os.ReadFile(p.ConfigFile())
	p.Reload(string(text))
	for i := range versions {
		transfers(tls.VersionName(versions[i])+", by the ticket of the control connection, at the end", first[i])
		transfers(tls.VersionName(versions[i])+", after a silence", silent[i])
	}
}

// A client that cannot upload has not replaced what was there.
func TestFTPUploadThatFailsInItsHandshakeTouchesNoFile(t *testing.T) {
	s, p := startFTP(t, "", "")
	for _, command := range []string{"STOR f", "APPE f"} {
		c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
		own := c.cfg
		c.store("other", nil) // what has gone well once may fail later
		c.cfg = &tls.Config{InsecureSkipVerify: true}
		tc := c.begin(command)
		_, _ = tc.Write([]byte("x"))
		if _, err := io.ReadAll(tc); err == nil {
			t.Error("it could write")
		}
		if reply := c.until(c.d.final); !strings.HasPrefix(reply, "522") || s.commands(command) > 0 {
			t.Errorf("%q; the server has been told to store %d times", reply, s.commands(command))
		}
		c.cfg = own
		c.ask(ask{"NOOP\r\n", "^200"})
	}
}

// A client that is sending when its upload is refused gets to know why.
func TestFTPRefusedUpload(t *testing.T) {
	_, p := startFTP(t, "", "")
	for _, size := range []int{0, 1 << 10, 16 << 20} {
		c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
		for range 2 {
			if reply := c.store("refused", make([]byte, size)); !strings.HasPrefix(reply, "550") {
				t.Errorf("an upload of %d bytes: %q", size, reply)
			}
		}
		c.ask(ask{"NOOP\r\n", "^200"})
	}
}

// Whoever else comes to the port is turned away, and does not keep the client out.
func TestFTPDataConnectionFromAnotherAddress(t *testing.T) {
	s, p := startFTP(t, "", "")
	s.files["f"] = []byte("content")
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	port := c.epsv()
	thief := c.dialData(port, "127.0.0.2")
	c.send("RETR f\r\n")
	if got, err := io.ReadAll(thief); len(got) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other is told %q, %v", got, err)
	}
	nc := c.dialData(port, "127.0.0.1")
	c.until("^150 ")
	if got, err := io.ReadAll(tls.Client(nc, c.cfg)); string(got) != "content" || err != nil {
		t.Errorf("the client gets %q, %v", got, err)
	}
	c.until("^226 ")
	logged(t, p, "from another address")
}

// The server is not believed about addresses, nor when it says more than it was asked.
func TestFTPServerThatPointsElsewhere(t *testing.T) {
	s, p := startFTP(t, "", "")
	s.pasv = func(port int) string {
		return fmt.Sprintf("227 Entering Passive Mode (192,0,2,99,%d,%d)\r\n", port>>8, port&0xff)
	}
	s.files["f"] = []byte("content")
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	if got, reply := c.retrieve("f"); string(got) != "content" || !strings.HasPrefix(reply, "226") {
		t.Errorf("%q, %q", got, reply)
	}
	s.pasv = func(int) string { return "227 Entering Passive Mode (127,0,0,1,0,25)\r\n" }
	c.ask(ask{"EPSV\r\n", "^425"})
	s.pasv = func(int) string { return "227-x\r\n227 (1,2,3)\r\n" }
	c.ask(ask{"EPSV\r\n", "^425"})
	s.reply = func(line, text string) string {
		if line == "PWD" {
			return "257 \"/a\nRETR f\r226 done\x00\"\r\n"
		}
		return text
	}
	if reply := c.ask(ask{"PWD\r\n", "^257"}); strings.ContainsAny(strings.TrimSuffix(reply, "\r\n"), "\r\n\x00") {
		t.Errorf("control characters in %q", reply)
	}
	s.reply = func(line, text string) string {
		if line == "SYST" {
			return text + "230 and more\r\n"
		}
		return text
	}
	c.send("SYST\r\n")
	if rest, err := io.ReadAll(c.r); !strings.HasSuffix(string(rest), "421 The server behind this one is not available\r\n") || err != nil {
		t.Errorf("a reply that nobody has asked for: %q, %v", rest, err)
	}
	logged(t, p, "it said what it was not asked")
}

// The bounce (RFC 2577).
func TestFTPBounceThroughPORT(t *testing.T) {
	s, p := startFTP(t, "", "")
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	c.ask(ask{"PORT 127,0,0,1,200,1\r\n", "^502"})
	c.ask(ask{"EPRT |1|127.0.0.1|51201|\r\n", "^502"})
	_, active := startFTP(t, ", active: true", "")
	c = ftpLogin(t, active.Addrs[0], tls.VersionTLS13)
	c.ask(ask{"PORT 127,0,0,2,200,1\r\n", "^504"})
	c.ask(ask{"PORT 127,0,0,1,0,25\r\n", "^504"})
	c.ask(ask{"EPRT |1|127.0.0.2|51201|\r\n", "^504"})
	if s.commands("PASV")+s.commands("PORT")+s.commands("EPRT") > 0 {
		t.Errorf("the server was told %q", s.said)
	}
}

// Active mode, in which we are the TLS server all the same (RFC 4217 §7).
func TestFTPActive(t *testing.T) {
	s, p := startFTP(t, ", active: true", "")
	s.files["f"] = []byte("content")
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	if got, reply := c.accepts("f", "EPRT |1|127.0.0.1|%d|"); string(got) != "content" || !strings.HasPrefix(reply, "226") {
		t.Errorf("%q, %q", got, reply)
	}
}

// RFC 2428, also where one socket is for both families.
func TestFTPOverIPv6(t *testing.T) {
	s := startFTPServer(t)
	s.files["f"] = []byte("content")
	for _, on := range []struct{ listen, host, epsv, eprt string }{
		{"[::1]:0", "::1", "2", "EPRT |2|::1|%d|"},
		{":0", "::1", "2", "EPRT |2|::1|%d|"},
		{":0", "127.0.0.1", "1", "EPRT |1|127.0.0.1|%d|"},
	} {
		if ln, err := net.Listen("tcp", on.listen); err != nil {
			t.Skip("no IPv6 here: ", err)
		} else {
			_ = ln.Close()
		}
		t.Run(on.host+" at "+on.listen, func(t *testing.T) {
			p := enginetest.Start(t, enginetest.Config{YAML: fmt.Sprintf(
				"listeners:\n  - {address: '%s', protocol: ftp, backend: 'tcp://%s', active: true}\n", on.listen, s.addr)})
			_, port, _ := net.SplitHostPort(p.Addrs[0])
			c := ftpLogin(t, net.JoinHostPort(on.host, port), tls.VersionTLS13)
			if got, reply := c.retrieve("f"); string(got) != "content" || !strings.HasPrefix(reply, "226") {
				t.Errorf("passive: %q, %q", got, reply)
			}
			if got, reply := c.accepts("f", on.eprt); string(got) != "content" || !strings.HasPrefix(reply, "226") {
				t.Errorf("active: %q, %q", got, reply)
			}
			c.ask(ask{"EPSV " + on.epsv + "\r\n", "^229"})
			c.ask(ask{"EPSV 3\r\n", `^522 Use \(` + on.epsv + `\)`})
			pasv := "^227 .*\\(127,0,0,1,"
			if on.epsv == "2" {
				pasv = "^522 "
			}
			c.ask(ask{"PASV\r\n", pasv})
			c.ask(ask{"EPRT |2|::2|50000|\r\n", "^504"})
		})
	}
}
