// Package stub is an IMAP server for measurements of what is in front of it: it lets
// everybody in, has one message of a given size and keeps none.
package stub

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// Server serves on a listener, with a goroutine for each connection.
type Server struct {
	ln      net.Listener
	message []byte
	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	served  sync.WaitGroup
}

// New serves on loopback. The message has size bytes.
func New(size int) (*Server, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return Serve(ln, size), nil
}

// Serve serves on ln, which it closes in the end.
func Serve(ln net.Listener, size int) *Server {
	s := &Server{ln: ln, message: make([]byte, size), conns: make(map[net.Conn]struct{})}
	for i := range s.message {
		s.message[i] = "0123456789abcdef"[i%16]
	}
	s.served.Go(s.accept)
	return s
}

// Addr is HOST:PORT.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Close ends all connections and waits for them.
func (s *Server) Close() {
	_ = s.ln.Close()
	s.mu.Lock()
	for nc := range s.conns {
		_ = nc.Close()
	}
	s.mu.Unlock()
	s.served.Wait()
}

func (s *Server) accept() {
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[nc] = struct{}{}
		s.mu.Unlock()
		s.served.Go(func() {
			s.serve(nc)
			_ = nc.Close()
			s.mu.Lock()
			delete(s.conns, nc)
			s.mu.Unlock()
		})
	}
}

const capabilities = "CAPABILITY IMAP4rev1 ID IDLE AUTH=PLAIN"

func (s *Server) serve(nc net.Conn) {
	r := bufio.NewReaderSize(nc, 512)
	say := func(text string) { _, _ = io.WriteString(nc, text) }
	say("* OK [" + capabilities + "] stub\r\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		tag, text, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		verb, arg, _ := strings.Cut(text, " ")
		switch strings.ToUpper(verb) {
		case "CAPABILITY":
			say("* " + capabilities + "\r\n")
		case "FETCH":
			say(fmt.Sprintf("* 1 FETCH (BODY[] {%d}\r\n", len(s.message)))
			_, _ = nc.Write(s.message)
			say(")\r\n")
		case "LOGIN", "APPEND":
			if err := take(r, say, arg); err != nil {
				return
			}
		case "IDLE":
			say("+ idling\r\n")
			if _, err := r.ReadString('\n'); err != nil {
				return
			}
		case "LOGOUT":
			say("* BYE\r\n" + tag + " OK\r\n")
			return
		}
		say(tag + " OK done\r\n")
	}
}

// take reads the literals of a command whose first line ends with line.
func take(r *bufio.Reader, say func(string), line string) error {
	for strings.HasSuffix(line, "}") {
		i := strings.LastIndexByte(line, '{')
		size, err := strconv.Atoi(strings.TrimRight(line[i+1:], "+}"))
		if err != nil {
			return err
		}
		if !strings.HasSuffix(line, "+}") {
			say("+ go on\r\n")
		}
		if _, err := io.CopyN(io.Discard, r, int64(size)); err != nil {
			return err
		}
		if line, err = r.ReadString('\n'); err != nil {
			return err
		}
		line = strings.TrimRight(line, "\r\n")
	}
	return nil
}
