package tlsbridge

import (
	"context"
	"crypto/tls"
	"fmt"
)

// Client returns the client's end of a TLS connection over l, which has to block.
// It does the handshake on the calling goroutine, and returns when that is over;
// to end it sooner, the owner of l has its Read and Write fail. Afterwards the Conn
// is as one of Server: with SetLink it goes on over a link that does not wait.
//
// When ctx is done, no handshake is begun.
func Client(ctx context.Context, l Link, cfg *tls.Config) (*Conn, error) {
	c := &Conn{link: l}
	c.tls = tls.Client((*shim)(c), cfg)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// HandshakeContext would need a goroutine, only to close the shim.
	if err := c.tls.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return c, nil
}
