package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/textproto"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/jlaffaye/ftp"

	"starttlsd/tlsbridge/tlstest"
)

// goClient is a session of another program in Go, logged in. Its data connections
// resume, because there is a cache for it alone.
func (f *ftpFront) goClient(t *testing.T, more ...ftp.DialOption) *ftp.ServerConn {
	t.Helper()
	cfg := tlstest.ClientConfig()
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	port, secure := f.explicit, ftp.DialWithExplicitTLS(cfg)
	if len(more) > 0 { // implicit
		port, secure = f.implicit, ftp.DialWithTLS(cfg)
	}
	c, err := ftp.Dial("127.0.0.1:"+port, append(more, secure, ftp.DialWithTimeout(20*time.Second), ftp.DialWithShutTimeout(20*time.Second))...)
	if err == nil {
		err = c.Login(f.user, f.password)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fetch(c *ftp.ServerConn, name string, offset uint64) ([]byte, error) {
	r, err := c.RetrFrom(name, offset)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(r)
	if closed := r.Close(); err == nil {
		err = closed
	}
	return content, err
}

func TestInteropFTPWithGo(t *testing.T) {
	for _, start := range realFTPs {
		f := frontFTP(t, start(t))
		for name, more := range map[string][]ftp.DialOption{
			"explicit": nil,
			"implicit": {ftp.DialWithDisabledMLSD(true), ftp.DialWithDisabledEPSV(true)},
		} {
			t.Run(f.name+" "+name, func(t *testing.T) { f.goSuite(t, f.goClient(t, more...)) })
		}
	}
}

// goSuite is what that client can do.
func (f *ftpFront) goSuite(t *testing.T, c *ftp.ServerConn) {
	content := noise(6, 1<<20)
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(what+": ", err)
		}
	}
	must("MKD", c.MakeDir("up/dir"))
	must("CWD", c.ChangeDir("up/dir"))
	must("STOR", c.Stor("a file", bytes.NewReader(content[:1<<19])))
	must("APPE", c.Append("a file", bytes.NewReader(content[1<<19:])))
	f.has("up/dir/a file", content)
	must("STOR", c.Stor("empty", bytes.NewReader(nil)))
	f.has("up/dir/empty", nil)
	for _, offset := range []uint64{0, 1 << 20, 12345} {
		got, err := fetch(c, "a file", offset)
		if err != nil || !bytes.Equal(got, content[offset:]) {
			t.Errorf("RETR from %d: %d bytes, %v", offset, len(got), err)
		}
	}
	size, err := c.FileSize("a file")
	if err != nil || size != 1<<20 {
		t.Errorf("SIZE %d, %v", size, err)
	}
	must("RNFR, RNTO", c.Rename("a file", "renamed"))
	var names []string
	entries, err := c.List("")
	must("LIST", err)
	for _, e := range entries {
		if e.Type == ftp.EntryTypeFile {
			names = append(names, fmt.Sprint(e.Name, " ", e.Size))
		}
	}
	if len(names) != 2 || names[0] != "empty 0" && names[1] != "empty 0" {
		t.Errorf("LIST: %q", names)
	}
	if _, err := fetch(c, "missing", 0); err == nil || err.(*textproto.Error).Code != 550 {
		t.Errorf("RETR of what is not there: %v", err)
	}
	must("CDUP", c.ChangeDirToParent())
	must("RMD", c.RemoveDirRecur("dir"))
	if where, err := c.CurrentDir(); err != nil || path.Clean(where) != "/up" {
		t.Errorf("PWD %s, %v", where, err)
	}
	must("QUIT", c.Quit())
}

// Ten sessions at a time do not get into each other's way.
func TestInteropFTPTenSessionsAtOnce(t *testing.T) {
	f := frontFTP(t, startVsftpd(t))
	var all sync.WaitGroup
	for i := range 10 {
		c := f.goClient(t)
		all.Go(func() {
			if err := f.exchange(c, i); err != nil {
				t.Errorf("session %d: %v", i, err)
			}
			_ = c.Quit()
		})
	}
	all.Wait()
}

// exchange brings files up and down, in binary and in ASCII: there a line ends with
// CRLF on the way, and with LF on the server.
func (f *ftpFront) exchange(c *ftp.ServerConn, number int) error {
	for round := range 5 {
		binary := noise(uint64(100*number+round), 1<<20+number)
		text := bytes.ReplaceAll(fmt.Appendf(nil, "%x", binary[:100_000]), []byte("0"), []byte("\n"))
		for _, file := range []struct {
			kind         ftp.TransferType
			there, sends []byte
		}{
			{ftp.TransferTypeBinary, binary, binary},
			{ftp.TransferTypeASCII, text, bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))},
		} {
			name := fmt.Sprintf("up/%d.%d.%s", number, round, file.kind)
			if err := c.Type(file.kind); err != nil {
				return err
			}
			if err := c.Stor(name, bytes.NewReader(file.sends)); err != nil {
				return err
			}
			f.has(name, file.there)
			got, err := fetch(c, name, 0)
			if err != nil {
				return err
			}
			if !bytes.Equal(got, file.sends) {
				return fmt.Errorf("%s came back with %d bytes instead of %d", name, len(got), len(file.sends))
			}
		}
	}
	return nil
}
