package backend

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/semaphore"

	"starttlsd/tlsbridge"
)

// Options say how a Server is reached.
type Options struct {
	Address Address
	// TLS is for Implicit and StartTLS. The server's certificate has to be for its
	// ServerName, or else for the host of Address. TLS 1.2 is the least.
	TLS *tls.Config
	// Proxy is the version of the PROXY header that says who the client is, before
	// anything else; 0: none. The backend has to expect it, from us alone.
	Proxy int
	// Timeout bounds a dial in all: until there is a connection, TLS, and the
	// session is introduced. Default 10 s.
	Timeout time.Duration
	// Concurrency is the most dials at a time; others wait for one to end. Default 64.
	Concurrency int
	// Further asks for Conn.Secure, which keeps the session of each connection.
	Further bool
	// Resolver finds the addresses of a name. Default net.DefaultResolver.
	Resolver Resolver
}

// Resolver is the part of *net.Resolver that a Server needs.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Server is a server to which sessions are relayed. Its methods may be called from
// any goroutine.
type Server struct {
	opts   Options
	dialer net.Dialer
	places *semaphore.Weighted
}

// Conn is a connection to which a session was introduced. It is the caller's.
type Conn struct {
	TCP   *net.TCPConn    // without deadlines and keep-alive probes
	TLS   *tlsbridge.Conn // over TCP; nil in plaintext
	Ahead []byte          // decrypted, and read but not consumed by the session

	// Secure does the handshake of a further connection to the same server, such as an
	// FTP data connection, on which it resumes the session of this one. It is nil in
	// plaintext, and where Options.Further is not set. When ctx is done, tcp is closed and the handshake fails.
	Secure func(ctx context.Context, tcp *net.TCPConn) (*tlsbridge.Conn, error)
}

// NewServer returns the server that o describes. It looks up and connects nothing.
func NewServer(o Options) (*Server, error) {
	secure := o.Address.Scheme != Plain
	switch {
	case secure && o.TLS == nil:
		return nil, fmt.Errorf("backend %s: TLS needs a configuration", o.Address)
	case secure && o.TLS.InsecureSkipVerify:
		return nil, fmt.Errorf("backend %s: the certificate has to be verified; trust its CA instead", o.Address)
	case o.Proxy < 0 || o.Proxy > 2:
		return nil, errors.New("backend: the PROXY header has the versions 1 and 2")
	}
	if secure {
		o.TLS = o.TLS.Clone()
		o.TLS.ServerName = cmp.Or(o.TLS.ServerName, o.Address.serverName())
		o.TLS.MinVersion = max(o.TLS.MinVersion, tls.VersionTLS12)
	}
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.Concurrency = cmp.Or(o.Concurrency, 64)
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	return &Server{
		opts:   o,
		dialer: net.Dialer{KeepAlive: -1}, // whoever holds the connection has deadlines
		places: semaphore.NewWeighted(int64(o.Concurrency)),
	}, nil
}
