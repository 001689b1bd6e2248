package load

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
)

const defaultFile = "load.bin"

// files is what a session has for its data connections, one at a time.
type files struct {
	control, data *tls.Config
	in            *input
	number        int // of the session
}

// newFiles has data connections resume the session's TLS, and no other's: servers
// know by it that both are the same client's.
func newFiles(cfg *tls.Config) *files {
	f := &files{control: cfg.Clone(), data: cfg.Clone(), in: new(input)}
	f.control.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	f.data.ClientSessionCache = unchanged{f.control.ClientSessionCache}
	return f
}

// unchanged is a cache that stays as it is, whatever tickets a data connection gets.
type unchanged struct{ tls.ClientSessionCache }

func (unchanged) Put(string, *tls.ClientSessionState) {}

// ftpBegin is of RFC 4217 §9 and RFC 959 §4.1.2.
func ftpBegin(o *Options) []exchange {
	binary := exchange{"TYPE I\r\n", "200"}
	if o.Plain {
		return []exchange{binary}
	}
	return []exchange{{"PBSZ 0\r\n", "200"}, {"PROT P\r\n", "200"}, binary}
}

func ftpTransfer(o *Options) func(*conn) (int, error) {
	name := cmp.Or(o.File, defaultFile)
	if !o.Upload {
		return func(c *conn) (int, error) { return c.file("RETR "+name+"\r\n", (*data).receive) }
	}
	return func(c *conn) (int, error) {
		return c.file(fmt.Sprintf("STOR %s.%d\r\n", name, c.files.number), (*data).give)
	}
}

// file transfers one: the data connection, the command, the file, and the word that
// it is whole. Of what goes wrong with the file, the server may know more.
func (c *conn) file(command string, across func(*data) (int, error)) (n int, err error) {
	d, err := c.passive()
	if err != nil {
		return 0, fmt.Errorf("data connection: %w", err)
	}
	defer d.close()
	if err := c.do(exchange{command, "1"}); err != nil { // 125 or 150
		return 0, err
	}
	if err = d.start(c); err == nil {
		n, err = across(d)
	}
	d.close()
	_, last := c.reply("2") // 226 or 250
	switch {
	case err != nil && last != nil:
		return n, fmt.Errorf("data connection: %w, and then: %w", err, last)
	case err != nil:
		return n, fmt.Errorf("data connection: %w", err)
	case last != nil:
		return n, fmt.Errorf("after the file: %w", last)
	}
	return n, nil
}

// passive opens a data connection to where the server says, from where the session's is.
func (c *conn) passive() (*data, error) {
	if err := c.say("EPSV\r\n"); err != nil {
		return nil, err
	}
	_, line, err := c.lastLine("229")
	if err != nil {
		return nil, err
	}
	port, ok := passivePort(line)
	if !ok {
		return nil, &failure{Wrong, fmt.Errorf("got %.200q, want a port", line)}
	}
	var from netip.AddrPort
	if c.run.spread {
		from = netip.AddrPortFrom(c.tcp.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), 0)
	}
	d, err := c.run.dialTo(from, netip.AddrPortFrom(c.run.address.Addr(), port), c.end, c.files.in)
	if err != nil {
		return nil, err
	}
	return &data{conn: d}, nil
}

// passivePort reads the reply to EPSV, RFC 2428 §3: (|||port|), with a delimiter of
// the server's choice.
func passivePort(line []byte) (uint16, bool) {
	_, rest, _ := bytes.Cut(line, []byte("("))
	text, _, ok := bytes.Cut(rest, []byte(")"))
	if !ok || len(text) < len("|||1|") {
		return 0, false
	}
	port, ok := bytes.CutPrefix(text[:len(text)-1], bytes.Repeat(text[:1], 3))
	n, err := strconv.ParseUint(string(port), 10, 16)
	return uint16(n), ok && err == nil && n != 0 && text[len(text)-1] == text[0]
}

// data is a data connection.
type data struct {
	*conn
	wire wire
}

// wire is the connection below TLS. It notes its end, which crypto/tls takes for a
// close_notify when it comes between records.
type wire struct {
	*net.TCPConn
	ended bool
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.TCPConn.Read(p)
	w.ended = w.ended || err == io.EOF
	return n, err
}

// start secures the data connection of c, if c is.
func (d *data) start(c *conn) error {
	if c.tls == nil {
		return nil
	}
	d.wire.TCPConn = d.tcp
	return d.secure(&d.wire, c.files.data)
}

// receive reads the file to its end, and returns its size.
func (d *data) receive() (n int, err error) {
	for err == nil {
		var m int
		m, err = d.read(d.in.buf[:])
		n += m
	}
	if err == io.EOF && d.wire.ended {
		err = fmt.Errorf("%w: no close_notify", io.ErrUnexpectedEOF)
	}
	if err != io.EOF {
		return n, fail(Lost, fmt.Sprintf("after %d bytes", n), err)
	}
	if d.tls != nil {
		_ = d.tls.CloseWrite()
	}
	if want := d.run.o.Size; want > 0 && n != want {
		return n, &failure{Wrong, fmt.Errorf("the file has %d bytes, want %d", n, want)}
	}
	return n, nil
}

// piece is what files are made of, over and over.
var piece = bytes.Repeat([]byte("What goes up is the same 64 bytes, over and over, and ends here\n"), 1<<10)

// give sends a file. Its end is a close_notify and a FIN. Until the server's FIN all
// is read that it sends, such as tickets, or closing would reset the connection.
func (d *data) give() (n int, err error) {
	for size := d.run.o.Size; n < size; {
		part := piece[:min(size-n, len(piece))]
		if err := d.send(part); err != nil {
			return n, err
		}
		n += len(part)
	}
	if d.tls != nil {
		err = d.tls.CloseWrite()
	}
	if err = errors.Join(err, d.tcp.CloseWrite()); err != nil {
		return n, fail(Lost, "at the end of the file", err)
	}
	for err == nil {
		_, err = d.tcp.Read(d.in.buf[:])
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, fail(Timeout, "waiting for the end of the connection", err)
	}
	return n, nil
}
