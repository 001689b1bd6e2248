package stub

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

func TestDialogue(t *testing.T) {
	s, err := New(10)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	nc, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_, _ = io.WriteString(nc, "a LOGIN {1}\r\nu {1+}\r\np\r\nb FETCH 1 BODY[]\r\nc APPEND INBOX {3+}\r\nabc\r\nd IDLE\r\nDONE\r\ne LOGOUT\r\n")
	all, err := io.ReadAll(bufio.NewReader(nc))
	want := "* OK [" + capabilities + "] stub\r\n+ go on\r\na OK done\r\n" +
		"* 1 FETCH (BODY[] {10}\r\n0123456789)\r\nb OK done\r\nc OK done\r\n+ idling\r\nd OK done\r\n* BYE\r\ne OK\r\n"
	if string(all) != want || err != nil {
		t.Errorf("%q, %v; want %q", all, err, want)
	}
}

func TestCloseEndsIdleConnections(t *testing.T) {
	s, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_, _ = fmt.Fprint(nc, "a IDLE\r\n")
	r := bufio.NewReader(nc)
	for line := ""; !strings.HasPrefix(line, "+"); {
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	if _, err := r.ReadByte(); err == nil {
		t.Error("still there")
	}
}
