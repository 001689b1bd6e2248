package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// What we take for a SASL response must be one to Dovecot as well: it answers a line that
// it refuses at once, and takes what follows for a command, whose OK is no login.
func TestInteropSieveResponseIsNoCommandToDovecot(t *testing.T) {
	d := startDovecot(t)
	for name, first := range map[string]string{
		"literal":           "AUTHENTICATE \"PLAIN\" {4+}\r\nNOOP\r\n",
		"literal, refused":  "AUTHENTICATE \"ANONYMOUS\" {4+}\r\nNOOP\r\n",
		"two literals":      "AUTHENTICATE \"PLAIN\" {3+} {4+}\r\nNOOP\r\n",
		"no ASCII":          "AUTHENT\u0131CATE \"PLAIN\" {4+}\r\nNOOP\r\n",
		"long literal":      "AUTHENTICATE \"PLAIN\" {8191+}\r\n" + strings.Repeat("A", 8187) + "NOOP\r\n",
		"literal, answered": "AUTHENTICATE \"PLAIN\"\r\n{4+}\r\nNOOP\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			tc, r := sieveUnderTLS(t, d)
			_, _ = io.WriteString(tc, first+"AUTHENTICATE \"PLAIN\"\r\n")
			for _, line := range []string{"\"*\"\r\n", "XCLIENT ADDR=10.66.66.66 PORT=666\r\n", "CAPABILITY\r\n", "LOGOUT\r\n"} {
				time.Sleep(100 * time.Millisecond) // for it to be read as such
				_, _ = io.WriteString(tc, line)
			}
			_ = tc.CloseWrite()
			said, _ := io.ReadAll(r)
			if strings.Contains(string(said), "XCLIENT") || strings.Contains(d.log(), "10.66.66.66") || len(said) == 0 {
				t.Errorf("said to a client without a login:\n%s", said)
			}
		})
	}
}

// sieveUnderTLS is a session up to its greeting behind STARTTLS.
func sieveUnderTLS(t *testing.T, d *dovecot) (*tls.Conn, *bufio.Reader) {
	t.Helper()
	nc, err := net.Dial("tcp", "127.0.0.1:"+d.sieve)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	untilOK := func(r *bufio.Reader) {
		for line := ""; !strings.HasPrefix(line, "OK"); {
			if line, err = r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := bufio.NewReader(nc)
	untilOK(r)
	_, _ = io.WriteString(nc, "STARTTLS\r\n")
	untilOK(r)
	tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	r = bufio.NewReader(tc)
	untilOK(r)
	return tc, r
}
