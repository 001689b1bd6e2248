package load

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

// ftpStub is an FTP server as far as the client goes. It is told what to do wrong
// by its fields, and by their zero values nothing.
type ftpStub struct {
	size     int    // of its file
	implicit bool   // TLS from the first byte
	max      uint16 // version of TLS

	truncate bool   // downloads end without close_notify
	epsv     string // reply
	refuse   string // reply to RETR and STOR in the place of 150
	after    string // reply behind a file, in the place of 226
	early    bool   // 226 is sent with 150

	mu      sync.Mutex
	said    []string // commands
	resumed int      // data connections that were of their session
	fresh   int      // and those that were not
	uploads []upload
}

type upload struct {
	name  string
	size  int
	same  bool // it is what files are made of
	whole bool // it ended with close_notify
}

// ftpSession is a control connection.
type ftpSession struct {
	*ftpStub
	nc   net.Conn
	r    *bufio.Reader
	tls  *tls.Config // of its own, and so are its tickets; nil: plaintext
	data net.Listener
}

func (s *ftpStub) start(t *testing.T) (addr string) {
	t.Helper()
	ln := listen(t)
	var served sync.WaitGroup
	served.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				_ = nc.SetDeadline(time.Now().Add(time.Minute))
				(&ftpSession{ftpStub: s, nc: nc}).serve()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		served.Wait()
	})
	return ln.Addr().String()
}

func (s *ftpSession) serve() {
	defer func() {
		_ = s.nc.Close()
		if s.data != nil {
			_ = s.data.Close()
		}
	}()
	if s.implicit {
		s.secure()
	}
	s.r = bufio.NewReader(s.nc)
	for text := "220-A stub\r\n 220 of few words\r\n220 is here\r\n"; ; {
		if _, err := io.WriteString(s.nc, text); err != nil {
			return
		}
		line, err := s.r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		s.mu.Lock()
		s.said = append(s.said, line)
		s.mu.Unlock()
		verb, name, _ := strings.Cut(line, " ")
		switch verb {
		case "QUIT":
			_, _ = io.WriteString(s.nc, "221 bye\r\n")
			return
		case "AUTH":
			_, _ = io.WriteString(s.nc, "234 go\r\n")
			s.secure()
			s.r, text = bufio.NewReader(s.nc), ""
		case "EPSV":
			text = s.passive()
		case "RETR", "STOR":
			text = s.file(verb, name)
		default:
			text = map[string]string{"FEAT": "211-Features\r\n AUTH TLS\r\n211-EPSV\r\n\r\n500 of them\r\n211 End\r\n",
				"USER": "331 whose?\r\n", "PASS": "230 in\r\n"}[verb]
			if text == "" {
				text = "200 fine\r\n"
			}
		}
	}
}

// secure makes the rest of s TLS, whose tickets no other session can use, and no
// data connection but the control connection gets.
func (s *ftpSession) secure() {
	s.tls = tlstest.ServerConfig()
	s.tls.MaxVersion = s.max
	s.nc = tls.Server(s.nc, s.tls)
}

func (s *ftpSession) passive() string {
	if s.epsv != "" {
		return s.epsv + "\r\n"
	}
	if s.data == nil {
		var err error
		if s.data, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return "425 " + err.Error() + "\r\n"
		}
	}
	return fmt.Sprintf("229-Here\r\n229 (|||%d|)\r\n", s.data.Addr().(*net.TCPAddr).Port)
}

// file has one go across and returns what there is to be said about it.
func (s *ftpSession) file(verb, name string) string {
	nc, err := s.data.Accept()
	if err != nil {
		return "425 " + err.Error() + "\r\n"
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	if s.refuse != "" {
		return s.refuse + "\r\n"
	}
	word := "226 done\r\n"
	if s.after != "" {
		word = s.after + "\r\n"
	}
	text := "150 go\r\n"
	if s.early {
		text, word = text+word, ""
	}
	if _, err := io.WriteString(s.nc, text); err != nil {
		return word
	}
	below := &wire{TCPConn: nc.(*net.TCPConn)}
	if s.tls != nil {
		if nc, err = s.accept(below); err != nil {
			return "522 " + err.Error() + "\r\n"
		}
	}
	if verb == "STOR" {
		u := upload{name: name}
		u.size, u.same = take(nc)
		u.whole = s.tls != nil && !below.ended
		s.mu.Lock()
		s.uploads = append(s.uploads, u)
		s.mu.Unlock()
		return word
	}
	for left := s.size; left > 0; left -= len(piece) {
		if _, err := nc.Write(piece[:min(left, len(piece))]); err != nil {
			return "426 " + err.Error() + "\r\n"
		}
	}
	if s.truncate {
		_ = below.TCPConn.Close()
	}
	_ = nc.Close()
	return word
}

// accept does the handshake of a data connection, as strictly as FTP servers do.
func (s *ftpSession) accept(nc net.Conn) (*tls.Conn, error) {
	const data = "data"
	cfg := s.tls.Clone()
	cfg.WrapSession = func(state tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		ss.Extra = append(ss.Extra, []byte(data))
		return cfg.EncryptTicket(state, ss)
	}
	cfg.UnwrapSession = func(ticket []byte, state tls.ConnectionState) (*tls.SessionState, error) {
		ss, err := cfg.DecryptTicket(ticket, state)
		if err != nil || ss == nil || len(ss.Extra) > 0 { // of another session, or of a data connection
			return nil, err
		}
		return ss, nil
	}
	tc := tls.Server(nc, cfg)
	err := tc.Handshake()
	s.mu.Lock()
	defer s.mu.Unlock()
	if tc.ConnectionState().DidResume {
		s.resumed++
	} else {
		s.fresh++
	}
	return tc, err
}

// take reads to the end.
func take(r io.Reader) (size int, same bool) {
	buf := make([]byte, 32<<10)
	for same = true; ; {
		n, err := r.Read(buf)
		for part := buf[:n]; len(part) > 0; {
			from := piece[size%len(piece):]
			m := min(len(from), len(part))
			same = same && bytes.Equal(part[:m], from[:m])
			size, part = size+m, part[m:]
		}
		if err != nil {
			return size, same
		}
	}
}
