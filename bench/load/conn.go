package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// conn is one connection. One goroutine at a time uses it.
type conn struct {
	run   *run
	tcp   *net.TCPConn
	tls   *tls.Conn // nil in plaintext
	in    *input    // borrowed
	end   time.Time // when what is being done has to be
	files *files    // nil: it has no data connections
}

// input is what was read and not yet looked at. A connection borrows it, so that
// thousands of idle ones have none.
type input struct {
	buf  [16 << 10]byte
	r, w int
}

// failure is an error with its kind.
type failure struct {
	kind Kind
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// fail is err as a failure of the given kind, unless it is a timeout.
func fail(kind Kind, doing string, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		kind = Timeout
	}
	return &failure{kind, fmt.Errorf("%s: %w", doing, err)}
}

// dial connects. All that follows on the connection until the next extend has to
// be done at end.
func (r *run) dial(end time.Time, in *input) (*conn, error) {
	return r.dialTo(r.source(), r.address, end, in)
}

func (r *run) dialTo(from, to netip.AddrPort, end time.Time, in *input) (*conn, error) {
	d := net.Dialer{Deadline: end, KeepAlive: -1}
	tcp, err := d.DialTCP(r.ctx, "tcp", from, to)
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			err = fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err)
		}
		return nil, fail(Dial, "connecting", err)
	}
	in.r, in.w = 0, 0
	c := &conn{run: r, tcp: tcp, in: in}
	r.opened(c)
	c.extend(end)
	return c, nil
}

// source is the local address for the next connection. One address has 28,000
// ports, each of which is blocked for a minute when its connection has ended.
func (r *run) source() netip.AddrPort {
	if !r.spread {
		return netip.AddrPort{}
	}
	n := r.dials.Add(1)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, byte(1 + n/250%8), byte(1 + n%250)}), 0)
}

func (c *conn) extend(end time.Time) {
	c.end = end
	_ = c.tcp.SetDeadline(end)
	if c.run.ctx.Err() != nil { // or cut would be undone
		_ = c.tcp.SetDeadline(past)
	}
}

// greet reads the greeting.
func (c *conn) greet() error {
	_, err := c.reply(c.run.o.Target.protocol.greeting)
	if f, ok := errors.AsType[*failure](err); ok && (f.kind == Lost || f.kind == Wrong) {
		return &failure{Greeting, fmt.Errorf("greeting: %w", f.err)}
	}
	return err
}

// open is all up to the session in which work is done: secured, unless that is
// not wanted, and greeted.
func (c *conn) open() error {
	p, implicit := c.run.o.Target.protocol, c.run.o.Target.Implicit
	if implicit {
		if err := c.handshake(); err != nil {
			return err
		}
	}
	if err := c.greet(); err != nil {
		return err
	}
	if err := c.do(p.hello); err != nil || implicit || c.run.o.Plain {
		return err
	}
	if err := c.do(p.starttls); err != nil {
		return err
	}
	if err := c.handshake(); err != nil {
		return err
	}
	if p.again != "" {
		if _, err := c.reply(p.again); err != nil {
			return err
		}
	}
	return c.do(p.hello)
}

func (c *conn) handshake() error {
	if c.in.r < c.in.w {
		return &failure{Wrong, errors.New("more than the go-ahead was sent in plaintext")}
	}
	if c.files != nil {
		return c.secure(c.tcp, c.files.control)
	}
	return c.secure(c.tcp, c.run.tls)
}

// secure does the handshake over nc, which is the connection.
func (c *conn) secure(nc net.Conn, cfg *tls.Config) error {
	c.tls = tls.Client(nc, cfg)
	if err := c.tls.Handshake(); err != nil {
		return fail(Handshake, "handshake", err)
	}
	c.run.secured(c.tls)
	return nil
}

// do sends a command and reads its reply.
func (c *conn) do(x exchange) error {
	_, err := c.ask(x)
	return err
}

// ask is do, and returns the length of the reply.
func (c *conn) ask(x exchange) (n int, err error) {
	if n, err = c.confide(x); err != nil {
		err = fmt.Errorf("%.30q: %w", x.send, err)
	}
	return n, err
}

// confide is ask for a command that no error may show.
func (c *conn) confide(x exchange) (n int, err error) {
	if err := c.say(x.send); err != nil {
		return 0, err
	}
	return c.reply(x.want)
}

// say sends a command whose reply is not there yet.
func (c *conn) say(command string) error {
	if c.in.r < c.in.w { // or it would be taken for the answer
		return &failure{Wrong, errors.New("something was sent before it that was not asked for")}
	}
	return c.write(command)
}

func (c *conn) write(s string) error { return c.send([]byte(s)) }

func (c *conn) send(p []byte) error {
	var w io.Writer = c.tcp
	if c.tls != nil {
		w = c.tls
	}
	if _, err := w.Write(p); err != nil {
		return fail(Lost, "writing", err)
	}
	return nil
}

// reply reads one whole reply, whose last line has to begin with want, and
// returns its length in bytes. Its errors are failures.
func (c *conn) reply(want string) (n int, err error) {
	n, _, err = c.lastLine(want)
	return n, err
}

// lastLine is reply, and returns the last line too, which is good until the next read.
func (c *conn) lastLine(want string) (n int, line []byte, err error) {
	p := c.run.o.Target.protocol
	var first opening
	for {
		line, err := c.line()
		if err != nil {
			return n, nil, err
		}
		if n == 0 {
			copy(first[:], line)
		}
		n += len(line)
		if p.more(first, line, want) {
			continue
		}
		if strings.HasPrefix(string(line[:min(len(line), len(want))]), want) {
			return n, line, nil
		}
		kind, text := Wrong, string(bytes.TrimRight(line, "\r\n"))
		for _, busy := range p.busy {
			if strings.HasPrefix(text, busy) {
				kind = Refused
			}
		}
		return n, nil, &failure{kind, fmt.Errorf("got %.200q, want %s", text, want)}
	}
}

// line reads up to and with the next line feed. The line is good until the next read.
func (c *conn) line() ([]byte, error) {
	in, searched := c.in, 0
	for {
		if i := bytes.IndexByte(in.buf[in.r+searched:in.w], '\n'); i >= 0 {
			line := in.buf[in.r : in.r+searched+i+1]
			in.r += len(line)
			return line, nil
		}
		searched = in.w - in.r
		if in.r > 0 {
			in.w = copy(in.buf[:], in.buf[in.r:in.w])
			in.r = 0
		}
		if in.w == len(in.buf) {
			return nil, &failure{Wrong, errors.New("a line without an end")}
		}
		n, err := c.read(in.buf[in.w:])
		in.w += n
		if n == 0 && err != nil {
			return nil, fail(Lost, "waiting for a reply", err)
		}
	}
}

func (c *conn) read(p []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Read(p)
	}
	return c.tcp.Read(p)
}

// quit ends the session and the connection as both sides should: the reply,
// close_notify and FIN each way. It returns when the reply was there. That the
// server resets the connection behind its reply is no error.
func (c *conn) quit() (time.Time, error) {
	defer c.close()
	err := c.do(c.run.o.Target.protocol.quit)
	at := time.Now()
	if err != nil {
		return at, err
	}
	if c.tls != nil {
		_ = c.tls.CloseWrite()
	}
	_ = c.tcp.CloseWrite()
	for err == nil {
		_, err = c.tcp.Read(c.in.buf[:])
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return at, fail(Timeout, "waiting for the end of the connection", err)
	}
	return at, nil
}

// close ends the connection at once.
func (c *conn) close() {
	c.run.closed(c)
	_ = c.tcp.Close()
}
