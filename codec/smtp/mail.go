package smtp

import (
	"bytes"
	"errors"
	"strconv"

	"starttlsd/codec"
)

// maxRecipientOctets bounds what the addresses of one message may take in memory.
const maxRecipientOctets = 64 << 10

// mail begins a transaction (RFC 5321 §4.1.1.2).
func (s *Session) mail(arg, out []byte) ([]byte, codec.Action) {
	arg, ok := cutPrefix(arg, "FROM:")
	if !ok {
		return s.refuse(out, errArgument)
	}
	from, params, ok := parsePath(arg)
	if !ok {
		return s.refuse(out, errReverse)
	}
	env := Envelope{From: string(from)}
	if r := s.mailParams(&env, params); r != nil {
		return s.refuse(out, r)
	}
	if !env.UTF8 && !ascii(from) {
		return s.refuse(out, errNeedsUTF8)
	}
	s.begun++
	s.tx = &transaction{env: env}
	s.to(mail)
	return say(out, replySender)
}

// mailParams reads the parameters of MAIL, which only EHLO has announced.
func (s *Session) mailParams(env *Envelope, params []byte) *reply {
	for param := range bytes.FieldsFuncSeq(params, func(r rune) bool { return r == ' ' || r == '\t' }) {
		keyword, value, _ := bytes.Cut(param, []byte{'='})
		switch { // a keyword may come twice: Python's smtplib adds a SIZE of its own
		case !s.extended:
			return errParameter
		case codec.Is(keyword, "SIZE"): // RFC 1870 §6
			size, err := strconv.ParseUint(string(value), 10, 63)
			switch {
			case errors.Is(err, strconv.ErrRange) || err == nil && int64(size) > s.maxSize():
				return errTooBig
			case err != nil:
				return errArgument
			}
			env.Size = int64(size)
		case codec.Is(keyword, "BODY"): // RFC 6152 §2
			switch {
			case codec.Is(value, "7BIT"):
				env.BodyType = "7BIT"
			case codec.Is(value, "8BITMIME"):
				env.BodyType = "8BITMIME"
			default:
				return errArgument
			}
		case codec.Is(param, "SMTPUTF8"): // RFC 6531 §3.4
			env.UTF8 = true
		default:
			return errParameter
		}
	}
	return nil
}

// rcpt adds a recipient (RFC 5321 §4.1.1.3).
func (s *Session) rcpt(arg, out []byte) ([]byte, codec.Action) {
	arg, ok := cutPrefix(arg, "TO:")
	if !ok {
		return s.refuse(out, errArgument)
	}
	to, params, ok := parsePath(arg)
	env := &s.tx.env
	switch {
	case !ok && isPostmaster(arg):
		to, params = arg[1:len(arg)-1], nil
	case !ok || len(to) == 0:
		return s.refuse(out, errForward)
	}
	switch {
	case len(params) > 0:
		return s.refuse(out, errParameter)
	case !env.UTF8 && !ascii(to):
		return s.refuse(out, errNeedsUTF8)
	case uint32(len(env.To)) >= limit(s.cfg.Limits.Recipients, defaultRecipients),
		s.tx.to+len(to) > maxRecipientOctets:
		return s.refuse(out, errRecipients)
	}
	s.tx.to += len(to)
	env.To = append(env.To, string(to))
	s.to(rcpt)
	return say(out, replyRecipient)
}

// maxSize is the limit of a message's content.
func (s *Session) maxSize() int64 {
	if s.cfg.MaxMessageSize != 0 {
		return s.cfg.MaxMessageSize
	}
	return defaultMessageSize
}

// cutPrefix removes a keyword, and a space that many clients put behind it.
func cutPrefix(arg []byte, keyword string) ([]byte, bool) {
	if len(arg) < len(keyword) || !codec.Is(arg[:len(keyword)], keyword) {
		return nil, false
	}
	return bytes.TrimLeft(arg[len(keyword):], " "), true
}
