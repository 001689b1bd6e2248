package backend

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// maxLine bounds a line of the backend, without its line end.
const maxLine = 16 << 10

var (
	errLineTooLong = fmt.Errorf("a line of the backend is longer than %d bytes", maxLine)
	errClosed      = fmt.Errorf("the backend has closed the connection: %w", io.ErrUnexpectedEOF)
	errInjected    = errors.New("plaintext stands behind the backend's go-ahead for STARTTLS, which is an attack or a broken server; use tls:// if it has a port for that")
	errNoStartTLS  = errors.New("STARTTLS is not due on this connection")
)

// dialogue is a connection while the session is introduced. It is used by one
// goroutine, and what it waits for ends when the connection's deadline passes.
type dialogue struct {
	ctx context.Context
	tcp *net.TCPConn
	cfg *tls.Config
	due bool            // STARTTLS
	tls *tlsbridge.Conn // nil in plaintext
	in  *bufio.Reader   // over tls or tcp
}

var _ codec.Upstream = (*dialogue)(nil)

func newDialogue(ctx context.Context, tcp *net.TCPConn, cfg *tls.Config, due bool) *dialogue {
	return &dialogue{ctx: ctx, tcp: tcp, cfg: cfg, due: due, in: bufio.NewReaderSize(tcp, maxLine+len("\r\n"))}
}

// ReadLine implements codec.Upstream. A line ends with LF, or with CR LF.
func (d *dialogue) ReadLine() ([]byte, error) {
	line, err := d.in.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull:
		return nil, errLineTooLong
	case err != nil:
		return nil, ended(err)
	}
	line = bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'})
	if len(line) > maxLine {
		return nil, errLineTooLong
	}
	return line, nil
}

// Read implements codec.Upstream.
func (d *dialogue) Read(p []byte) (int, error) {
	n, err := d.in.Read(p)
	return n, ended(err)
}

// ended puts the end of the connection, which is never due here, into words.
func ended(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errClosed
	}
	return err
}

// Write implements codec.Upstream.
func (d *dialogue) Write(p []byte) (int, error) {
	if d.tls != nil {
		return d.tls.Write(p)
	}
	return d.tcp.Write(p)
}

// MustStartTLS implements codec.Upstream.
func (d *dialogue) MustStartTLS() bool { return d.due }

// Secure implements codec.Upstream.
func (d *dialogue) Secure() bool { return d.tls != nil }

// StartTLS implements codec.Upstream. What comes later in plaintext than the check
// for it is no TLS record, and ends the handshake.
func (d *dialogue) StartTLS() error {
	switch {
	case !d.due:
		return errNoStartTLS
	case d.in.Buffered() > 0:
		return errInjected
	}
	return d.secure()
}

// secure does the handshake. Nothing is buffered.
func (d *dialogue) secure() error {
	conn, err := handshake(d.ctx, d.tcp, d.cfg)
	if err != nil {
		return err
	}
	d.tls, d.due = conn, false
	d.in.Reset(conn)
	return nil
}

func handshake(ctx context.Context, tcp *net.TCPConn, cfg *tls.Config) (*tlsbridge.Conn, error) {
	conn, err := tlsbridge.Client(ctx, tcp, cfg)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, advice(err))
	}
	return conn, nil
}

// ahead is what was read and not consumed.
func (d *dialogue) ahead() []byte {
	b, _ := d.in.Peek(d.in.Buffered())
	return bytes.Clone(b)
}
