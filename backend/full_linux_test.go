package backend

import (
	"bytes"
	"errors"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"testing"

	"starttlsd/engine/enginetest"
)

// TestSystemFullDiskIsSaidAndRecovers has the whole command deliver into a file
// system of 1 MiB.
func TestSystemFullDiskIsSaidAndRecovers(t *testing.T) {
	t.Cleanup(enginetest.RemoveBinary)
	path := mountTmpfs(t, "size=1m")
	p := startOn(t, path)
	c, err := enginetest.DialSTARTTLS(p.Addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The same session throughout.
	small := []byte("Subject: small\r\n\r\nfits\r\n")
	big := append([]byte("Subject: big\r\n\r\n"), bytes.Repeat([]byte("does not fit\r\n"), 2<<20/14)...)
	deliver := func(content []byte, code, stored int) {
		t.Helper()
		checkReply(t, enginetest.Deliver(c, content), code)
		checkStored(t, path, stored)
	}
	deliver(small, 250, 1)
	deliver(big, 452, 1)
	deliver(small, 250, 2)
	checkReply(t, deliverChunk(c, big), 452)
	checkStored(t, path, 2)
	deliver(small, 250, 3)

	filler := filepath.Join(path, "filler")
	fill(t, filler)
	deliver(small, 452, 3)
	deliver(small, 452, 3)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	deliver(small, 250, 4)
}

func checkReply(t *testing.T, err error, code int) {
	t.Helper()
	got := 250
	var reply *textproto.Error
	if errors.As(err, &reply) {
		got = reply.Code
	} else if err != nil {
		t.Fatal(err)
	}
	if got != code {
		t.Errorf("reply %d, want %d", got, code)
	}
}

func checkStored(t *testing.T, path string, want int) {
	t.Helper()
	stored, _ := filepath.Glob(filepath.Join(path, "new", "*"))
	left, _ := filepath.Glob(filepath.Join(path, "tmp", "*"))
	if len(stored) != want || len(left) > 0 {
		t.Errorf("%d in new/, want %d; %d in tmp/", len(stored), want, len(left))
	}
}

// deliverChunk is enginetest.Deliver with BDAT.
func deliverChunk(c *smtp.Client, content []byte) error {
	if err := c.Mail("a@example.org"); err != nil {
		return err
	}
	if err := c.Rcpt("b@example.org"); err != nil {
		return err
	}
	id, err := c.Text.Cmd("BDAT %d LAST\r\n%s", len(content), content[:len(content)-2]) // Cmd adds the last line end
	if err != nil {
		return err
	}
	c.Text.StartResponse(id)
	defer c.Text.EndResponse(id)
	_, _, err = c.Text.ReadResponse(250)
	return err
}

// fill writes to file until there is no room.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); ; {
		if _, err := f.Write(page); err != nil {
			return
		}
	}
}
