package main

import (
	"context"

	"starttlsd/backend"
	"starttlsd/codec"
	"starttlsd/codec/ftp"
	"starttlsd/codec/imap"
	"starttlsd/codec/nntp"
	"starttlsd/codec/pop3"
	"starttlsd/codec/sieve"
	"starttlsd/codec/smtp"
	"starttlsd/config"
	"starttlsd/engine"
)

// serveOn puts the sessions of l on el, and what is behind them: the server, or a
// Maildir, which listeners with the same path share.
func (d *daemon) serveOn(el *engine.Listener, hostname string, l *config.Listener, server *backend.Server) error {
	if server != nil {
		el.NewSession = relayed(hostname, l)
		el.Dial = upstreamOf(server)
		switch l.Protocol {
		case "imap", "pop3", "sieve", "ftp":
			el.Limits.Login = l.Limits.Login
		}
		if l.Protocol == "ftp" {
			el.Data = &engine.Data{Ports: d.portsOf(l), Bound: l.DataSession == config.ResumeControl}
		}
		return nil
	}
	path := l.Maildir()
	if d.maildirs[path] == nil {
		m, err := backend.OpenMaildir(path)
		if err != nil {
			return err
		}
		d.maildirs[path] = m
	}
	sc := &smtp.Config{
		Hostname:       hostname,
		TLS:            l.TLS == config.StartTLS,
		RequireTLS:     l.RequireTLS.Required(),
		MaxMessageSize: int64(l.Limits.MessageSize),
		Limits:         smtpLimits(l),
		Backend:        d.counted(el.Name, d.maildirs[path]),
	}
	el.NewSession = func(p *codec.Peer) codec.Session { return smtp.New(sc, p) }
	return nil
}

func smtpLimits(l *config.Listener) smtp.Limits {
	return smtp.Limits{
		Line:         int(l.Limits.Line),
		BadCommands:  l.Limits.BadCommands,
		JunkCommands: l.Limits.JunkCommands,
		Recipients:   l.Limits.Recipients,
		Messages:     l.Limits.Messages,
	}
}

func upstreamOf(server *backend.Server) func(context.Context, codec.Relayed, *codec.Client) (engine.Upstream, error) {
	return func(ctx context.Context, s codec.Relayed, c *codec.Client) (engine.Upstream, error) {
		conn, err := server.Dial(ctx, s, c)
		if err != nil {
			return engine.Upstream{}, err
		}
		return engine.Upstream{TCP: conn.TCP, TLS: conn.TLS, Ahead: conn.Ahead, Secure: conn.Secure}, nil
	}
}

// relayed makes the sessions of a listener that has a server behind it.
func relayed(hostname string, l *config.Listener) func(*codec.Peer) codec.Session {
	starttls, line, bad, junk := l.TLS == config.StartTLS, int(l.Limits.Line), l.Limits.BadCommands, l.Limits.JunkCommands
	switch l.Protocol {
	case "imap":
		c := &imap.Config{
			Hostname: hostname, TLS: starttls, RequireTLS: l.RequireTLS.Required(), ID: l.BackendOptions.IMAPID,
			Limits: imap.Limits{Line: line, BadCommands: bad, JunkCommands: junk},
		}
		return func(p *codec.Peer) codec.Session { return imap.New(c, p) }
	case "pop3":
		c := &pop3.Config{
			Hostname: hostname, TLS: starttls, RequireTLS: l.RequireTLS.Required(),
			Limits: pop3.Limits{Line: line, BadCommands: bad, JunkCommands: junk},
		}
		return func(p *codec.Peer) codec.Session { return pop3.New(c, p) }
	case "sieve":
		c := &sieve.Config{
			Hostname: hostname, TLS: starttls, RequireTLS: l.RequireTLS.Required(),
			Limits: sieve.Limits{Line: line, BadCommands: bad, JunkCommands: junk},
		}
		return func(p *codec.Peer) codec.Session { return sieve.New(c, p) }
	case "nntp":
		c := &nntp.Config{
			Hostname: hostname, TLS: starttls, RequireTLS: l.RequireTLS.Required(),
			Limits: nntp.Limits{Line: line, BadCommands: bad, JunkCommands: junk},
		}
		return func(p *codec.Peer) codec.Session { return nntp.New(c, p) }
	case "ftp":
		c := &ftp.Config{
			Hostname: hostname, TLS: starttls, RequireTLS: ftpPolicies[l.RequireTLS], Active: l.Active,
			Limits: ftp.Limits{Line: line, BadCommands: bad, JunkCommands: junk},
		}
		if a := l.Passive.Addr(); a.IsValid() {
			c.PASV = a.AsSlice()
		}
		return func(p *codec.Peer) codec.Session { return ftp.New(c, p) }
	default: // smtp and lmtp
		c := &smtp.GatewayConfig{
			Hostname: hostname, TLS: starttls, RequireTLS: l.RequireTLS.Required(),
			LMTP: l.Protocol == "lmtp", XCLIENT: l.BackendOptions.XCLIENT,
			Limits: smtpLimits(l),
		}
		return func(p *codec.Peer) codec.Session { return smtp.NewGateway(c, p) }
	}
}

var ftpPolicies = map[config.RequireTLS]ftp.Policy{
	config.TLSForData: ftp.ForData, config.TLSForControl: ftp.ForControl, config.TLSOff: ftp.Optional,
}

// portsOf are the ports for data connections of l. Listeners with the same range share
// them, as do those before and after a reload.
func (d *daemon) portsOf(l *config.Listener) *engine.Ports {
	p := d.ports[l.Passive.Ports]
	if p == nil {
		p = engine.NewPorts(l.Passive.Range())
		d.ports[l.Passive.Ports] = p
	}
	return p
}
