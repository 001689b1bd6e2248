package peers

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// imapClient is one that has logged in, over STARTTLS.
type imapClient struct {
	raw net.Conn
	net.Conn
	r *bufio.Reader
}

// logIn opens n clients, a few at a time. Those that are open come back also with an error.
func logIn(ctx context.Context, addr string, n int) ([]*imapClient, error) {
	clients := make([]*imapClient, n)
	errs := make([]error, n)
	width := make(chan struct{}, 16)
	var all sync.WaitGroup
	for i := range n {
		width <- struct{}{}
		all.Go(func() {
			defer func() { <-width }()
			clients[i], errs[i] = logInOne(ctx, addr)
		})
	}
	all.Wait()
	return clients, errors.Join(errs...)
}

func closeAll(clients []*imapClient) {
	for _, c := range clients {
		if c != nil {
			_ = c.raw.Close()
		}
	}
}

func logInOne(ctx context.Context, addr string) (*imapClient, error) {
	d := net.Dialer{Timeout: imapPatience, KeepAlive: -1}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = nc.SetDeadline(time.Now().Add(10 * time.Minute))
	c := &imapClient{raw: nc, Conn: nc, r: bufio.NewReaderSize(nc, 512)}
	if _, err := c.until("* OK"); err != nil {
		return c, err
	}
	if err := c.command("STARTTLS", "a OK"); err != nil {
		return c, err
	}
	tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}})
	if err := tc.HandshakeContext(ctx); err != nil {
		return c, err
	}
	c.Conn, c.r = tc, bufio.NewReaderSize(tc, 512)
	return c, c.command("LOGIN u p", "a OK")
}

// command sends one and reads up to the line that begins with want.
func (c *imapClient) command(text, want string) error {
	if _, err := io.WriteString(c, "a "+text+"\r\n"); err != nil {
		return err
	}
	_, err := c.until(want)
	return err
}

func (c *imapClient) until(want string) (string, error) {
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(line, want) {
			return line, nil
		}
		if strings.HasPrefix(line, "a ") {
			return "", fmt.Errorf("got %q, want %s", line, want)
		}
	}
}

// fetch downloads the message, which has size bytes.
func (c *imapClient) fetch(size int) error {
	if _, err := io.WriteString(c, "a FETCH 1 BODY[]\r\n"); err != nil {
		return err
	}
	line, err := c.until("* 1 FETCH")
	if err != nil {
		return err
	}
	if !strings.Contains(line, fmt.Sprintf("{%d}", size)) {
		return fmt.Errorf("got %q, want %d bytes", line, size)
	}
	if _, err := io.CopyN(io.Discard, c.r, int64(size)); err != nil {
		return err
	}
	_, err = c.until("a OK")
	return err
}

// add uploads a message of size bytes.
func (c *imapClient) add(size int) error {
	if err := c.command(fmt.Sprintf("APPEND INBOX {%d}", size), "+"); err != nil {
		return err
	}
	for piece := make([]byte, 64<<10); size > 0; size -= len(piece) {
		piece = piece[:min(size, len(piece))]
		if _, err := c.Write(piece); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(c, "\r\n"); err != nil {
		return err
	}
	_, err := c.until("a OK")
	return err
}
