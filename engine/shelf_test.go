package engine

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"starttlsd/codec"
)

// shelf is front with downloads as FTP has them. GET n is for a file from port n of the
// backend's, SGET n for one under TLS. It is answered with the port where it comes from.
// The backend gets it when the connections are there, with TLS after the handshake, for
// which the client is told to begin; and its reply waits for the last byte. ABORT ends a
// download. What the backend says with "-" ends the session.
type shelf struct {
	front
	data    codec.Data
	pending []byte // the command
	secure  bool
	getting bool // the backend has the command
}

func (s *shelf) Introduce(u codec.Upstream, c *codec.Client) error {
	s.data = c.Data
	return s.front.Introduce(u, c)
}

func (s *shelf) Outstanding() bool { return s.pending != nil || s.front.Outstanding() }

func (s *shelf) Forward(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	if s.pending != nil {
		return s.connected(up, out)
	}
	line, _, ok := bytes.Cut(in, []byte("\r\n"))
	verb, arg, _ := bytes.Cut(line, []byte(" "))
	n, secure := len(line)+2, string(verb) == "SGET"
	switch {
	case s.getting && string(verb) == "ABORT":
		s.data.Abort()
		return n, append(up, in[:n]...), out, codec.Continue
	case s.getting:
		return 0, up, out, codec.Hold
	case !ok || !secure && string(verb) != "GET":
		return s.front.Forward(in, up, out)
	}
	port, _ := strconv.ParseUint(string(arg), 10, 16)
	ours, err := s.data.Listen(uint16(port))
	if err != nil {
		return n, up, append(out, "-no port\r\n"...), codec.Continue
	}
	s.pending, s.secure = bytes.Clone(in[:n]), secure
	s.data.Connect(codec.Download, secure)
	return n, up, fmt.Appendf(out, "+%d\r\n", ours), codec.Continue
}

// connected passes the pending command on when it is time to.
func (s *shelf) connected(up, out []byte) (int, []byte, []byte, codec.Action) {
	switch s.data.State() {
	case codec.DataConnecting, codec.DataSecuring:
		return 0, up, out, codec.Hold
	case codec.DataConnected:
		s.data.Start()
		if s.secure {
			return 0, up, append(out, "+begin\r\n"...), codec.Continue
		}
	case codec.DataFailed:
		out = fmt.Appendf(out, "!%v\r\n", s.data.Fault())
		s.data.Close()
		s.pending = nil
		return 0, up, out, codec.Continue
	}
	up = append(up, s.pending...)
	s.pending, s.getting = nil, true
	s.owed++
	return 0, up, out, codec.Continue
}

func (s *shelf) Reply(in, out []byte) (int, []byte, codec.Action) {
	end := bytes.IndexByte(in, '\n') + 1
	switch {
	case end > 0 && in[0] == '-':
		return end, append(out, in[:end]...), codec.Close
	case end == 0 || !s.getting:
		return s.front.Reply(in, out)
	}
	switch s.data.State() {
	case codec.DataSecuring, codec.DataMoving:
		return 0, out, codec.Hold
	case codec.DataFailed:
		out = fmt.Appendf(out, "!%v\r\n", s.data.Fault())
	default:
		out = append(out, in[:end]...)
	}
	s.data.Close()
	s.getting = false
	s.owed--
	return end, out, codec.Continue
}

// library is a server of shelves, with a backend that gets one command.
type library struct {
	*server
	data  net.Listener // of the backend
	asked chan string
	tell  chan func(net.Conn) // what it does then
	enter func(*server) *client
}

// everyLibrary runs a test for each layer of both sides.
func everyLibrary(t *testing.T, test func(*testing.T, *library), opts ...option) {
	everyKind(t, func(t *testing.T, secureBackend bool, dial func(*server) *client) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second))
		l := &library{data: ln, asked: make(chan string, 1), tell: make(chan func(net.Conn)), enter: dial}
		over := make(chan struct{})
		b := backend(t, secureBackend, func(nc net.Conn, r *bufio.Reader) {
			_, _ = r.ReadString('\n') // FROM
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			l.asked <- line
			select {
			case tell := <-l.tell:
				tell(nc)
			case <-over:
			}
		})
		t.Cleanup(func() { close(over) })
		l.server = start(t, append(opts, relayTo(b), func(c *Config) {
			c.Listeners[0].NewSession = func(*codec.Peer) codec.Session { return new(shelf) }
			c.Listeners[0].Data = &Data{Ports: NewPorts(0, 0)}
		})...)
		test(t, l)
	})
}

// order begins a download, and returns the port where it comes from.
func (l *library) order(verb string) (control *client, port string) {
	l.t.Helper()
	control = l.enter(l.server)
	control.send(fmt.Sprintf("%s %d\r\n", verb, l.data.Addr().(*net.TCPAddr).Port))
	line, err := control.r.ReadString('\n')
	if err != nil || line[0] != '+' {
		l.t.Fatalf("%q, %v", line, err)
	}
	return control, line[1 : len(line)-2]
}

// fetch connects to the port; backend is the other end.
func (l *library) fetch(port string) (data, backend net.Conn) {
	l.t.Helper()
	data, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = data.Close() })
	_ = data.SetDeadline(time.Now().Add(30 * time.Second))
	if backend, err = l.data.Accept(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = backend.Close() })
	return data, backend
}

// download is one that the backend has the command for, and has sent nothing of.
func (l *library) download() (control *client, data, backend net.Conn) {
	l.t.Helper()
	control, port := l.order("GET")
	data, backend = l.fetch(port)
	<-l.asked
	return control, data, backend
}

// arrives has the backend send the rest, to the end.
func (l *library) arrives(data io.Reader, backend net.Conn) {
	l.t.Helper()
	const content = "all of it"
	_, _ = io.WriteString(backend, content)
	_ = backend.Close()
	if got, err := io.ReadAll(data); string(got) != content || err != nil {
		l.t.Errorf("the client has %q, %v", got, err)
	}
}

// lentPair waits until there is one that is as it has to be.
func (s *server) lentPair(what string, is func(*relay) bool) {
	s.t.Helper()
	eventually(s.t, what, func() bool {
		var pairs []*relay
		var locks []*carriage
		s.eng.lentMu.Lock()
		for c := range s.eng.lentSet {
			if r := c.relay; r != nil && r.lent != nil {
				pairs, locks = append(pairs, r), append(locks, r.lent)
			}
		}
		s.eng.lentMu.Unlock()
		for i, r := range pairs {
			locks[i].mu.Lock()
			defer locks[i].mu.Unlock()
			if is(r) {
				return true
			}
		}
		return false
	})
}
