package engine

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"starttlsd/codec"
)

// files is front with two commands more: UPLOAD n and DOWNLOAD n are for a file that goes
// to, or comes from, port n of the backend's. They are answered with the port that the
// client connects to, and with "+whole", or the fault, when it is over. REFUSE is the
// backend's word against an upload.
type files struct {
	front
	data codec.Data
}

func (s *files) Introduce(u codec.Upstream, c *codec.Client) error {
	s.data = c.Data
	return s.front.Introduce(u, c)
}

func (s *files) Forward(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	switch s.data.State() {
	case codec.DataConnected:
		s.data.Start()
		return 0, up, out, codec.Hold
	case codec.DataDone:
		s.data.Close()
		return 0, up, append(out, "+whole\r\n"...), codec.Continue
	case codec.DataFailed:
		out = fmt.Appendf(out, "-%v\r\n", s.data.Fault())
		s.data.Close()
		return 0, up, out, codec.Continue
	case codec.DataConnecting:
		return 0, up, out, codec.Hold
	case codec.DataMoving:
		if n := len("REFUSE\r\n"); string(in) == "REFUSE\r\n" {
			s.data.Close()
			return n, up, append(out, "-refused\r\n"...), codec.Continue
		}
		return 0, up, out, codec.Hold
	}
	line, _, ok := bytes.Cut(in, []byte("\r\n"))
	verb, arg, _ := strings.Cut(string(line), " ")
	way, transfer := map[string]codec.Way{"UPLOAD": codec.Upload, "DOWNLOAD": codec.Download}[verb]
	if !ok || !transfer {
		return s.front.Forward(in, up, out)
	}
	port, _ := strconv.ParseUint(arg, 10, 16)
	ours, err := s.data.Listen(uint16(port))
	if err != nil {
		return len(line) + 2, up, append(out, "-no port\r\n"...), codec.Continue
	}
	s.data.Connect(way, false)
	return len(line) + 2, up, fmt.Appendf(out, "+%d\r\n", ours), codec.Continue
}

// upload begins one, from data to backend, which has come in at ln.
func upload(t *testing.T, s *server, ln net.Listener) (control *client, data, backend net.Conn) {
	t.Helper()
	return begin(t, s, ln, "UPLOAD", new(net.Dialer))
}

// begin begins a transfer; d is what the client's connection is made with.
func begin(t *testing.T, s *server, ln net.Listener, verb string, d *net.Dialer) (control *client, data, backend net.Conn) {
	t.Helper()
	control = s.dial()
	control.send(fmt.Sprintf("%s %d\r\n", verb, ln.Addr().(*net.TCPAddr).Port))
	line, err := control.r.ReadString('\n')
	if err != nil || line[0] != '+' {
		t.Fatalf("%q, %v", line, err)
	}
	data, err = d.Dial("tcp", "127.0.0.1:"+line[1:len(line)-2])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = data.Close() })
	if backend, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = backend.Close() })
	return control, data, backend
}

func startFiles(t *testing.T, grace time.Duration, opts ...option) (*server, net.Listener) {
	t.Helper()
	was := bodyGrace
	bodyGrace = grace
	t.Cleanup(func() { bodyGrace = was }) // after the engine's end
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	b := backend(t, false, answer)
	opts = append([]option{relayTo(b), func(c *Config) {
		l := &c.Listeners[0]
		l.NewSession = func(*codec.Peer) codec.Session { return new(files) }
		l.Data = &Data{Ports: NewPorts(0, 0)}
		l.Limits.BodyRate = 1 << 30 // so that grace is all there is
	}}, opts...)
	return start(t, opts...), ln
}

// A client that trickles does not hold a transfer for ever.
func TestTrickledUploadIsCutShort(t *testing.T) {
	s, ln := startFiles(t, 200*time.Millisecond)
	control, data, backend := upload(t, s, ln)
	go func() {
		for err := error(nil); err == nil; time.Sleep(20 * time.Millisecond) {
			_, err = data.Write([]byte("x"))
		}
	}()
	control.expect("-client")
	if _, err := io.Copy(io.Discard, backend); err == nil {
		t.Error("the backend has seen a good end")
	}
}

// A backend that takes its time is not held against the client.
func TestUploadToABackendThatStallsGoesOn(t *testing.T) {
	const size, grace = 32 << 20, time.Second
	s, ln := startFiles(t, grace)
	control, data, backend := upload(t, s, ln)
	go func() {
		p := make([]byte, 64<<10)
		for range size / len(p) {
			if _, err := data.Write(p); err != nil {
				return
			}
		}
		time.Sleep(grace / 3)
		_ = data.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.CopyN(io.Discard, backend, 1<<20)
	time.Sleep(2 * grace)
	if n, err := io.Copy(io.Discard, backend); n != size-1<<20 || err != nil {
		t.Errorf("the rest is %d bytes, %v", n, err)
	}
	control.expect("+whole")
}

// The client's bytes are thrown away for a time, so that it reads the refusal and not a
// reset; to the backend there is no good end; and it is counted as what it is.
func TestUploadThatTheBackendRefuses(t *testing.T) {
	s, ln := startFiles(t, time.Minute)
	control, data, backend := upload(t, s, ln)
	if _, err := data.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(backend, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	control.send("REFUSE\r\n")
	control.expect("-refused")
	if _, err := io.Copy(io.Discard, backend); err == nil {
		t.Error("the backend has seen a good end")
	}
	_ = data.SetDeadline(time.Now().Add(10 * time.Second))
	if rest, err := io.ReadAll(data); len(rest) > 0 || err != nil {
		t.Errorf("the client has seen %q, %v, want a FIN", rest, err)
	}
	eventually(t, "the outcome", func() bool {
		st := s.eng.Stats()
		return st.Transfers[codec.FaultRefused] == 1
	})
	if st := s.eng.Stats(); st.Transfers[codec.NoFault]+st.Transfers[codec.FaultClient] > 0 {
		t.Errorf("transfers %v", st.Transfers)
	}
}
