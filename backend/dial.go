package backend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// Dial connects to the server, secures the connection where that is due, and has
// sess introduced over it. It waits until ctx is done or Options.Timeout has
// passed, whichever is sooner; the waiting for a place among the dials counts. An
// error is one line that says which step has failed, and where.
func (s *Server) Dial(ctx context.Context, sess codec.Relayed, c *codec.Client) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	conn, err := s.dial(ctx, sess, c)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() == nil:
		return nil, fmt.Errorf("backend %s: %w", s.opts.Address, err)
	case errors.Is(err, ctx.Err()):
		return nil, fmt.Errorf("backend %s: %w%s", s.opts.Address, err, overdue(ctx))
	default: // the end of ctx showed in the socket
		return nil, fmt.Errorf("backend %s: %w: %w%s", s.opts.Address, err, ctx.Err(), overdue(ctx))
	}
}

func overdue(ctx context.Context) string {
	if ctx.Err() == context.DeadlineExceeded {
		return "; is the server overloaded? its time is backend_options.timeout"
	}
	return ""
}

func (s *Server) dial(ctx context.Context, sess codec.Relayed, c *codec.Client) (_ *Conn, err error) {
	if err := s.places.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("waiting for one of %d other dials to end: %w", s.opts.Concurrency, err)
	}
	defer s.places.Release(1)
	tcp, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	done := false
	defer func() {
		if !done {
			_ = tcp.Close()
		}
	}()
	// In the past, to end what is waiting, and all that comes.
	stop := context.AfterFunc(ctx, func() { _ = tcp.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	d, err := s.introduce(ctx, tcp, sess, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tcp.RemoteAddr(), err)
	}
	if !stop() {
		return nil, fmt.Errorf("%s: %w", tcp.RemoteAddr(), ctx.Err())
	}
	done = true
	conn := &Conn{TCP: tcp, TLS: d.tls, Ahead: d.ahead()}
	if cfg := d.cfg; d.tls != nil && s.opts.Further { // d has a buffer that is not to stay
		conn.Secure = func(ctx context.Context, tcp *net.TCPConn) (*tlsbridge.Conn, error) {
			defer context.AfterFunc(ctx, func() { _ = tcp.Close() })()
			return handshake(ctx, tcp, cfg)
		}
	}
	return conn, nil
}

// introduce does what the connection needs before it is the session's.
func (s *Server) introduce(ctx context.Context, tcp *net.TCPConn, sess codec.Relayed, c *codec.Client) (*dialogue, error) {
	if s.opts.Proxy != 0 {
		header, err := proxyHeader(s.opts.Proxy, c)
		if err != nil {
			return nil, fmt.Errorf("PROXY header: %w", err)
		}
		if _, err := tcp.Write(header); err != nil {
			return nil, fmt.Errorf("PROXY header: %w", err)
		}
	}
	cfg := s.opts.TLS
	if s.opts.Further && cfg != nil { // the session of this connection is not for others
		cfg = cfg.Clone()
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	d := newDialogue(ctx, tcp, cfg, s.opts.Address.Scheme == StartTLS)
	if s.opts.Address.Scheme == Implicit {
		if err := d.secure(); err != nil {
			return nil, err
		}
	}
	if err := sess.Introduce(d, c); err != nil {
		return nil, err
	}
	if d.MustStartTLS() {
		return nil, errors.New("the session has not sent STARTTLS")
	}
	return d, nil
}

// connect tries the addresses in their order. One that refuses is followed by the
// next at once; one that is silent has its share of the time that is left.
func (s *Server) connect(ctx context.Context) (*net.TCPConn, error) {
	addrs, err := s.lookup(ctx)
	if err != nil {
		return nil, err
	}
	var failed []error
	for i, a := range addrs {
		tcp, err := s.try(ctx, netip.AddrPortFrom(a, s.opts.Address.Port), len(addrs)-i)
		if err == nil {
			return tcp, nil
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, &connectError{failed}
}

func (s *Server) lookup(ctx context.Context) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(s.opts.Address.Host); err == nil {
		return []netip.Addr{ip}, nil
	}
	addrs, err := s.opts.Resolver.LookupNetIP(ctx, "ip", s.opts.Address.Host)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return nil, fmt.Errorf("looking up the name: %w; check it and the system's resolver", err)
	}
	return addrs, nil
}

// try connects to a within one of so many equal shares of the time.
func (s *Server) try(ctx context.Context, a netip.AddrPort, shares int) (*net.TCPConn, error) {
	end, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(end)/time.Duration(shares))
	defer cancel()
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	conn, err := s.dialer.DialContext(ctx, "tcp", a.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// connectError is what became of each address, on one line.
type connectError struct{ failed []error }

func (e *connectError) Error() string {
	var texts []string
	for _, err := range e.failed {
		texts = append(texts, err.Error())
	}
	hint := ""
	if errors.Is(e.failed[len(e.failed)-1], syscall.ECONNREFUSED) {
		hint = "; is the server running, and is the port right?"
	}
	return strings.Join(texts, ", ") + hint
}

func (e *connectError) Unwrap() []error { return e.failed }

// advice says what an operator can do about a failed handshake.
func advice(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "; name the PEM file of its authority in backend_options.ca"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "; name one of those in backend_options.server_name"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "; does the server begin with TLS here? use starttls:// or tcp:// if not"
	}
	return ""
}
