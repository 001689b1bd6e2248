package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"strings"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

// ftpByHand is a session for what clients do when they die, or change their mind.
type ftpByHand struct {
	*textproto.Conn
	t   *testing.T
	cfg *tls.Config
}

func (f *ftpFront) byHand(t *testing.T) *ftpByHand {
	t.Helper()
	nc, err := net.Dial("tcp", "127.0.0.1:"+f.explicit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	c := &ftpByHand{textproto.NewConn(nc), t, tlstest.ClientConfig()}
	c.cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	c.reply(220)
	c.do("AUTH TLS", 234)
	c.Conn = textproto.NewConn(tls.Client(nc, c.cfg))
	c.do("PBSZ 0", 200)
	c.do("PROT P", 200)
	c.do("USER "+f.user, 331)
	c.do("PASS "+f.password, 230)
	c.do("TYPE I", 200)
	return c
}

// reply reads one, which has to have one of these codes.
func (c *ftpByHand) reply(codes ...int) (int, string) {
	c.t.Helper()
	code, text, err := c.ReadResponse(0)
	if err != nil && code == 0 {
		c.t.Fatal("waiting for a reply: ", err)
	}
	for _, want := range codes {
		if code == want {
			return code, text
		}
	}
	c.t.Fatalf("got %d %s, want one of %d", code, text, codes)
	return 0, ""
}

func (c *ftpByHand) do(command string, codes ...int) string {
	c.t.Helper()
	if err := c.PrintfLine("%s", command); err != nil {
		c.t.Fatal(err)
	}
	_, text := c.reply(codes...)
	return text
}

// begin starts a transfer, and returns its data connection with the handshake done.
func (c *ftpByHand) begin(command string) (*tls.Conn, *net.TCPConn) {
	c.t.Helper()
	_, text, _ := strings.Cut(c.do("EPSV", 229), "(|||")
	nc, err := net.DialTimeout("tcp", "127.0.0.1:"+text[:strings.IndexByte(text, '|')], 10*time.Second)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	c.do(command, 150, 125)
	tc := tls.Client(nc, c.cfg)
	if err := tc.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	return tc, nc.(*net.TCPConn)
}

// usable is what a session has to be after whatever has gone wrong with a file.
func (c *ftpByHand) usable() {
	c.t.Helper()
	c.do("PWD", 257)
	tc, _ := c.begin("LIST")
	if _, err := io.ReadAll(tc); err != nil {
		c.t.Error(err)
	}
	_ = tc.Close()
	c.reply(226)
}

// A client that dies within an upload must not leave a file that passes for whole. Of
// the part that has come a server is told by a reset: vsftpd keeps it, or with
// delete_failed_uploads does not; Pure-FTPd keeps it.
func TestInteropFTPTruncatedUpload(t *testing.T) {
	const size = 1 << 20
	for _, server := range []struct {
		name  string
		start func(*testing.T) *ftpFront
		keeps bool
	}{
		{"vsftpd", func(t *testing.T) *ftpFront { return frontFTP(t, startVsftpd(t)) }, true},
		{"vsftpd, delete_failed_uploads", func(t *testing.T) *ftpFront {
			return frontFTP(t, startVsftpd(t, "delete_failed_uploads=YES"))
		}, false},
		{"vsftpd under TLS", func(t *testing.T) *ftpFront {
			cert, key := tlstest.WritePEM(t.TempDir(), tlstest.Certificate("127.0.0.1"))
			s := startVsftpd(t, fmt.Sprintf(secureVsftpd, cert, key), "delete_failed_uploads=YES")
			return frontFTPWith(t, s, "starttls://127.0.0.1:"+s.port, `, backend_options: {ca: "CA"}`)
		}, false},
		{"Pure-FTPd", func(t *testing.T) *ftpFront { return frontFTP(t, startPureFTPd(t)) }, true},
	} {
		t.Run(server.name, func(t *testing.T) {
			f := server.start(t)
			for name, cut := range map[string]func(*net.TCPConn){
				"fin":   func(tc *net.TCPConn) { _ = tc.CloseWrite() },
				"reset": func(tc *net.TCPConn) { _ = tc.SetLinger(0); _ = tc.Close() },
			} {
				c := f.byHand(t)
				tc, raw := c.begin("STOR up/" + name)
				if _, err := tc.Write(noise(7, size)); err != nil {
					t.Fatal(err)
				}
				f.begins("up/" + name) // else the server may never have heard of it
				cut(raw)
				code, text := c.reply(425, 426, 451, 452)
				c.usable()
				left, err := os.Stat(f.path("up/" + name))
				switch {
				case err != nil && server.keeps, err == nil && !server.keeps:
					t.Errorf("%s: after %d %s, the file is there: %v", name, code, text, err == nil)
				case err == nil:
					t.Logf("%s: %d %s; %d bytes of %d are there", name, code, text, left.Size(), size)
				}
			}
		})
	}
}

// ABOR ends a download, whether the client reads on or has closed the data connection,
// and whether the server looks for ABOR meanwhile or not.
func TestInteropFTPAbort(t *testing.T) {
	for _, start := range []func(*testing.T) *realFTP{
		func(t *testing.T) *realFTP { return startVsftpd(t) },
		func(t *testing.T) *realFTP { return startVsftpd(t, "async_abor_enable=YES") },
		func(t *testing.T) *realFTP { return startPureFTPd(t) },
	} {
		f := frontFTP(t, start(t))
		f.put("large", nil)
		if err := os.Truncate(f.path("large"), 1<<30); err != nil {
			t.Fatal(err)
		}
		name := strings.Join(append([]string{f.name}, f.extra...), " ")
		for _, how := range []string{"reads on", "closes first", "Telnet"} {
			if how == "closes first" && f.name == "Pure-FTPd" { // it has no last word on such a download
				continue
			}
			t.Run(name+" "+how, func(t *testing.T) {
				c := f.byHand(t)
				for range 2 {
					c.abort(how)
				}
				c.do("ABOR", 225, 226) // of nothing
				c.usable()
			})
		}
	}
}

func (c *ftpByHand) abort(how string) {
	c.t.Helper()
	tc, raw := c.begin("RETR large")
	if _, err := io.CopyN(io.Discard, tc, 1<<20); err != nil {
		c.t.Fatal(err)
	}
	abor := "ABOR"
	switch how {
	case "closes first":
		_ = raw.Close()
	case "Telnet": // IAC IP, IAC DM
		abor = "\xff\xf4\xff\xf2ABOR"
	}
	began := time.Now()
	if err := c.PrintfLine("%s", abor); err != nil {
		c.t.Fatal(err)
	}
	if how != "closes first" {
		n, err := io.Copy(io.Discard, tc)
		if n >= 1<<30-1<<20 || err == nil {
			c.t.Errorf("%d bytes more, and %v: this may pass for whole", n, err)
		}
	}
	if code, _ := c.reply(150, 426, 451); code == 150 { // Pure-FTPd has statistics to tell
		c.reply(426, 451)
	}
	c.reply(225, 226)
	if lasted := time.Since(began); lasted > 5*time.Second {
		c.t.Errorf("it took %v", lasted)
	}
	c.do("PWD", 257)
}

// An upload can be aborted too, and of a file that is not there nothing comes.
func TestInteropFTPAbortedUploadAndMissingFile(t *testing.T) {
	for _, start := range realFTPs {
		f := frontFTP(t, start(t, "delete_failed_uploads=YES"))
		c := f.byHand(t)
		tc, _ := c.begin("STOR up/file")
		if _, err := tc.Write(noise(8, 100_000)); err != nil {
			t.Fatal(err)
		}
		c.do("ABOR", 426, 451)
		c.reply(225, 226, 451)
		if _, err := os.Stat(f.path("up/file")); err == nil && f.name == "vsftpd" {
			t.Error("what was aborted is there")
		}
		c.usable()
		_, text, _ := strings.Cut(c.do("EPSV", 229), "(|||")
		nc, err := net.Dial("tcp", "127.0.0.1:"+text[:strings.IndexByte(text, '|')])
		if err != nil {
			t.Fatal(err)
		}
		c.do("RETR missing", 550)
		_ = nc.Close()
		c.usable()
		c.do("QUIT", 221)
	}
}
