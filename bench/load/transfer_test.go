package load

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestDownload(t *testing.T) {
	body := strings.Repeat("* 1 FETCH {9}\r\na OK\r\n", 5000)
	for name, test := range map[string]struct {
		size int // expected
		says string
		want string // in the error; "": none
	}{
		"of the size":      {len(body), fmt.Sprintf("* 1 FETCH (BODY[] {%d}\r\n%s)\r\na OK\r\n", len(body), body), ""},
		"of any size":      {0, "* 2 EXISTS\r\n* 1 FETCH (FLAGS () BODY[] {3}\r\nabc FLAGS (\\Seen))\r\n* 3 EXISTS\r\na OK\r\n", ""},
		"of another size":  {4, "* 1 FETCH (BODY[] {3}\r\nabc)\r\na OK\r\n", "has 3 bytes, want 4"},
		"with no literal":  {0, "* 1 FETCH (BODY[] NIL)\r\na OK\r\n", "has 0 bytes"},
		"that is refused":  {0, "a NO none there\r\n", "none there"},
		"more than was so": {0, "* 1 FETCH (BODY[] {3}\r\nabcdef)\r\na OK\r\na OK\r\n", "not asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			d := dialogues["imap"]
			d.says = map[string]string{"a FETCH": test.says, "a LOGOUT": "* BYE\r\na OK\r\n"}
			to := target(t, "imap", play(t, d, new(spoken)))
			res := mustRun(t, Options{Mode: Transfer, Target: to, Connections: 1, Operations: 2, Size: test.size, User: "u", Password: "p"})
			if test.want != "" {
				if said := res.Examples[Wrong]; !strings.Contains(said, test.want) {
					t.Errorf("%d done, %q, want %q", res.Done, res.Examples, test.want)
				}
				return
			}
			clean(t, res, 2)
			if want := int64(2 * max(test.size, 3)); res.Bytes != want || res.ByteRate() <= 0 {
				t.Errorf("%d bytes, want %d", res.Bytes, want)
			}
		})
	}
}

func TestUpload(t *testing.T) {
	const size = 100_000
	ln := listen(t)
	got := make(chan string, 1)
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		r := bufio.NewReader(nc)
		for text := "* OK\r\n"; ; {
			_, _ = io.WriteString(nc, text)
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			text = "a OK\r\n"
			if strings.HasPrefix(line, "a APPEND") {
				_, _ = io.WriteString(nc, "+ go on\r\n")
				var b bytes.Buffer
				_, _ = io.CopyN(&b, r, size+2)
				got <- line + b.String()
			}
		}
	}()
	defer ln.Close()
	res := mustRun(t, Options{Mode: Transfer, Upload: true, Plain: true, Target: target(t, "imap", ln.Addr().String()),
		Connections: 1, Operations: 1, Size: size, User: "u", Password: "p"})
	clean(t, res, 1)
	if want := fmt.Sprintf("a APPEND INBOX {%d}\r\n%s\r\n", size, message(size)); <-got != want || res.Bytes != size {
		t.Errorf("%d bytes, or another message than was to be sent", res.Bytes)
	}
}
