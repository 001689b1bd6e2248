package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"starttlsd/backend"
	"starttlsd/codec"
	"starttlsd/config"
	"starttlsd/engine"
)

// report says what would be done, for -check. With dial it connects to each
// backend as a session would; one that cannot be reached is an error, which follows
// the rest.
func (b *build) report(w io.Writer, dial bool) error {
	cfg := b.cfg
	fmt.Fprintf(w, "host name      %s\n", cfg.Hostname)
	for _, c := range b.certs.Status() {
		from := c.File
		if c.SelfSigned {
			from = "self-signed, made at each start"
		}
		fmt.Fprintf(w, "certificate    %s: %s, until %s\n", from, strings.Join(c.Names, " "), c.NotAfter.UTC().Format(time.DateTime))
		if err := b.certs.Verify(c.File); err != nil {
			fmt.Fprintf(w, "               the chain is not one that this system trusts: %v\n", err)
		}
	}
	fmt.Fprintf(w, "tls            %s, client certificates: %s, session tickets: %s\n", cfg.TLS.Profile, cfg.TLS.ClientAuth, ticketText(&cfg.TLS.SessionTickets))
	if b.ring != nil && cfg.TLS.SessionTickets.Remote() {
		if err := b.ring.Status().Err; err != nil {
			fmt.Fprintf(w, "               %v\n", err)
		}
	}
	ec := engineConfig(cfg, nil)
	each := 1
	for i := range b.servers {
		if b.servers[i] != nil {
			each = 2
		}
	}
	most, why := engine.AutoMaxConnections(len(cfg.Listeners), ec.Loops, ec.Reserve, each)
	if n := cfg.Limits.MaxConnections; n > 0 && n <= most {
		most, why = n, "configured"
	}
	fmt.Fprintf(w, "connections    at most %d: %s\n", most, why)
	if cfg.Admin.Address != "" {
		fmt.Fprintf(w, "admin          http://%s/\n", cfg.Admin.Address)
	}
	var failed []error
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		fmt.Fprintf(w, "listener       %s on %s, %s%s, to %s\n", l.Protocol, l.Address, l.TLS, required(l), l.Backend)
		if l.Protocol == "ftp" {
			fmt.Fprintf(w, "               %s\n", dataText(l))
		}
		if !dial || b.servers[i] == nil {
			continue
		}
		if err := b.dial(i); err != nil {
			fmt.Fprintf(w, "               %v\n", err)
			failed = append(failed, err)
			continue
		}
		fmt.Fprintf(w, "               the backend answers\n")
	}
	if failed != nil {
		return fmt.Errorf("%d of the backends cannot be used, see above: %w", len(failed), failed[0])
	}
	fmt.Fprintln(w, "configuration ok")
	return nil
}

// dataText says how data connections of FTP are made, for who sets up the firewall.
func dataText(l *config.Listener) string {
	text := "data connections on any port"
	if l.Passive.Ports != "any" {
		text = fmt.Sprintf("data connections on %s", l.Passive.Ports)
	}
	if l.Passive.Address != "" {
		text += " of " + l.Passive.Address
	}
	if l.DataSession == config.ResumeControl {
		text += ", which resume the TLS session"
	}
	if l.Active {
		text += ", and to clients from 1024 on"
	}
	return text
}

func required(l *config.Listener) string {
	switch l.RequireTLS {
	case config.TLSRequired:
		return " (required)"
	case config.TLSForControl:
		return " (required to log in, NOT for data)"
	case config.TLSForData:
		return " (required to log in and for data)"
	case config.TLSOff:
		if l.TLS == config.Implicit {
			return " (NOT required for data)"
		}
		return " (NOT required: passwords and data may be in clear)"
	default:
		return ""
	}
}

// ticketText does not say more of a URL than what kind it is: it may hold a password.
func ticketText(t *config.SessionTickets) string {
	if t.Off {
		return "off"
	}
	kind, _, _ := strings.Cut(t.Keys, ":")
	return fmt.Sprintf("keys %s, rotated every %v", kind, t.Rotate)
}

// dial makes the connection of a client on loopback to backend i, and ends it.
func (b *build) dial(i int) error {
	peer := codec.NewPeer(1, netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:1"))
	session, ok := relayed(b.cfg.Hostname, &b.cfg.Listeners[i])(&peer).(codec.Relayed)
	if !ok {
		return errors.New("no backend")
	}
	session.Secured(&tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, PeerCertificates: []*x509.Certificate{}}, nil)
	conn, err := b.servers[i].Dial(context.Background(), session, &codec.Client{Peer: &peer})
	if err != nil {
		return err
	}
	defer conn.TCP.Close()
	if conn.TLS != nil {
		_ = conn.TLS.CloseNotify()
		return nil
	}
	if err := unasked(conn); err != nil {
		return fmt.Errorf("backend %s: %w", b.cfg.Listeners[i].Backend, err)
	}
	return nil
}

// unasked waits for what a backend has no reason to say, as one does that has taken a
// PROXY header for a command.
func unasked(conn *backend.Conn) error {
	said := make([]byte, 100)
	n := copy(said, conn.Ahead)
	var err error
	if n == 0 {
		_ = conn.TCP.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, err = conn.TCP.Read(said)
	}
	switch {
	case n > 0:
		return fmt.Errorf("behind its greeting it says %q, which it was not asked; does it expect a PROXY header if there is one?", said[:n])
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	}
	return fmt.Errorf("behind its greeting it ends the connection (%w); does it expect a PROXY header if there is one?", err)
}
