package enginetest

import (
	"crypto/tls"
	"io"
	"net"
	"net/smtp"
	"time"
)

const patience = time.Minute

// Dial returns a client that has read the greeting.
func Dial(addr string) (*smtp.Client, error) {
	nc, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return NewClient(nc)
}

// DialSTARTTLS returns a client that has upgraded, without a look at the certificate.
func DialSTARTTLS(addr string) (*smtp.Client, error) {
	c, err := Dial(addr)
	if err != nil {
		return nil, err
	}
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// DialImplicit is DialSTARTTLS where TLS comes first.
func DialImplicit(addr string) (*smtp.Client, error) {
	nc, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return NewClient(tls.Client(nc, &tls.Config{InsecureSkipVerify: true}))
}

// NewClient returns a client on nc that has read the greeting. Its session may
// take a minute, and nc is closed if it does not come to one.
func NewClient(nc net.Conn) (*smtp.Client, error) {
	_ = nc.SetDeadline(time.Now().Add(patience))
	c, err := smtp.NewClient(nc, "localhost")
	if err != nil {
		_ = nc.Close()
	}
	return c, err
}

// Deliver sends one message, which should end in CRLF to arrive as it is. Nil
// means that the server has acknowledged it.
func Deliver(c *smtp.Client, content []byte) error {
	w, err := Begin(c)
	if err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return err
	}
	return w.Close()
}

// Begin starts a message; closing what it returns asks for the acknowledgement.
func Begin(c *smtp.Client) (io.WriteCloser, error) {
	if err := c.Mail("alice@example.org"); err != nil {
		return nil, err
	}
	if err := c.Rcpt("bob@example.org"); err != nil {
		return nil, err
	}
	return c.Data()
}
