package baseline

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// relay is IMAP in front of a server in clear: as much of it as comes before the
// backend is needed, and from there on io.Copy each way, with a goroutine for each.
func (s *Server) relay(nc net.Conn) {
	s.extend(nc)
	secured := s.Implicit
	if secured {
		nc = tls.Server(nc, s.TLS)
	}
	defer func() { _ = nc.Close() }() // with close_notify
	r := bufio.NewReaderSize(nc, frontSize)
	say := func(text string) bool {
		_, err := io.WriteString(nc, text)
		return err == nil
	}
	for going := say("* OK ready\r\n"); going; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		tag, command, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch command = strings.ToUpper(command); {
		case command == "CAPABILITY" && !secured:
			going = say("* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n" + tag + " OK done\r\n")
		case command == "LOGOUT":
			say("* BYE\r\n" + tag + " OK done\r\n")
			return
		case secured:
			s.carry(nc, r, line)
			return
		case command == "STARTTLS" && r.Buffered() == 0:
			going = say(tag + " OK go ahead\r\n")
			nc, secured = tls.Server(nc, s.TLS), true
			r.Reset(nc)
		default:
			return
		}
	}
}

const frontSize = 512 // of what is read before there is a backend, and of its greeting

// carry connects the backend, whose greeting the client has had from us, and is over
// when both have ended.
func (s *Server) carry(nc net.Conn, r *bufio.Reader, line string) {
	d := net.Dialer{Timeout: s.Timeout, KeepAlive: -1}
	up, err := d.Dial("tcp", s.Backend)
	if err != nil {
		return
	}
	defer func() { _ = up.Close() }()
	s.extend(up)
	ur := bufio.NewReaderSize(up, frontSize)
	if _, err := ur.ReadString('\n'); err != nil {
		return
	}
	if _, err := io.WriteString(up, line); err != nil {
		return
	}
	for _, c := range []net.Conn{nc, up} {
		_ = c.SetDeadline(time.Time{})
	}
	var down sync.WaitGroup
	down.Go(func() {
		_, _ = io.Copy(nc, ur)
		_ = nc.Close() // or the client would be waited for
	})
	_, _ = io.Copy(up, r)
	_ = up.(*net.TCPConn).CloseWrite()
	down.Wait()
}
