package smtp

import (
	"bytes"
	"crypto/tls"
	"time"
)

func (s *Session) now() time.Time {
	if s.cfg.Now != nil {
		return s.cfg.Now()
	}
	return time.Now()
}

// trace is the header that a final delivery puts in front of a message (RFC 5321
// §4.4). Its line ends are CRLF, like those of the content.
func (s *Session) trace() []byte {
	env := &s.tx.env
	b := make([]byte, 0, 512)
	b = append(b, "Return-Path: <"...)
	b = append(b, env.From...)
	b = append(b, ">\r\nReceived: from "...)
	for i := range len(env.Helo) {
		b = append(b, nameOctet(env.Helo[i]))
	}
	b = append(b, " (["...)
	if addr := env.Peer.Remote.Addr().Unmap(); addr.Is4() {
		b = addr.AppendTo(b)
	} else {
		b = append(b, "IPv6:"...)
		b = addr.WithZone("").AppendTo(b)
	}
	b = append(b, "])\r\n\tby "...)
	b = append(b, s.cfg.Hostname...)
	b = append(b, " with "...)
	b = append(b, s.protocol()...)
	b = append(b, " id "...)
	b = append(b, env.ID...)
	if len(env.To) == 1 { // more would tell one recipient of another (RFC 5321 §7.2)
		b = append(b, "\r\n\tfor <"...)
		b = append(b, env.To[0]...)
		b = append(b, '>')
	}
	if env.TLS != nil { // RFC 8314 §4.3
		b = append(b, "\r\n\ttls "...)
		b = append(b, tls.CipherSuiteName(env.TLS.Cipher)...)
		b = append(b, " ("...)
		b = append(b, tls.VersionName(env.TLS.Version)...)
		if env.TLS.Client != "" {
			b = append(b, ", client certificate of "...)
			b = append(b, env.TLS.Client...)
		}
		b = append(b, ')')
	}
	b = append(b, ";\r\n\t"...)
	b = env.Time.AppendFormat(b, time.RFC1123Z)
	return append(b, "\r\n"...)
}

// protocol is the name of what was spoken (RFC 3848, RFC 6531 §4.3).
func (s *Session) protocol() string {
	name := "SMTP"
	if s.tx.env.UTF8 {
		name = "UTF8SMTP"
	} else if s.extended {
		name = "ESMTP"
	}
	if s.tls != nil && name != "SMTP" { // there is no SMTPS in the registry
		name += "S"
	}
	return name
}

// nameOctet keeps an octet of a host name or address literal; whatever else a
// client calls itself must not mean anything in a header field.
func nameOctet(c byte) byte {
	if letterDigit(c) || bytes.IndexByte([]byte(".-_:[]"), c) >= 0 {
		return c
	}
	return '?'
}

// hops counts the Received lines of a message's header (RFC 5321 §6.3).
type hops struct {
	count int
	col   int // octets of the line so far
	match int // of them, those that agree with "received:"
	body  bool
}

// scan looks at the next piece of the message.
func (h *hops) scan(p []byte) {
	const field = "received:"
	for _, c := range p {
		switch {
		case h.body:
			return
		case c == '\n':
			h.body = h.col == 0
			h.col, h.match = 0, 0
			continue
		case c == '\r':
			continue
		case h.match == h.col && h.match < len(field) && c|0x20 == field[h.match]|0x20:
			if h.match++; h.match == len(field) {
				h.count++
			}
		}
		h.col++
	}
}
