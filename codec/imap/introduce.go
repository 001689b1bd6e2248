package imap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"starttlsd/codec"
)

// Introduce implements codec.Relayed.
func (s *Session) Introduce(u codec.Upstream, c *codec.Client) error {
	offers, err := greeting(u)
	if err != nil {
		return err
	}
	if offers == nil {
		if offers, err = capabilities(u); err != nil {
			return err
		}
	}
	if u.MustStartTLS() {
		if !has(offers, "STARTTLS") {
			return errors.New("it does not offer STARTTLS; give it a certificate, or use tcp:// or tls://")
		}
		if _, err := run(u, "STARTTLS"); err != nil {
			return err
		}
		if err := u.StartTLS(); err != nil {
			return err
		}
		if offers, err = capabilities(u); err != nil { // what was said in clear is forgotten
			return err
		}
	}
	if s.cfg.ID && has(offers, "ID") {
		if _, err := run(u, "ID "+identity(c)); err != nil {
			return err
		}
	}
	s.backend = &backend{offers: pass(offers)}
	return nil
}

// identity is what Dovecot takes from login_trusted_networks (RFC 2971 for the form).
func identity(c *codec.Client) string {
	local := c.Peer.Local()
	return fmt.Sprintf(`("x-originating-ip" %q "x-originating-port" "%d" "x-connected-ip" %q "x-connected-port" "%d" "x-session-id" %q)`,
		c.Peer.Remote.Addr().Unmap().WithZone(""), c.Peer.Remote.Port(), local.Addr().Unmap().WithZone(""), local.Port(), c.Peer.ID)
}

// greeting returns the capabilities that it names, nil without any. A session that
// needs no login is nobody's to use (RFC 9051 §7.1.4).
func greeting(u codec.Upstream) ([]string, error) {
	line, err := u.ReadLine()
	if err != nil {
		return nil, fmt.Errorf("waiting for its greeting: %w", err)
	}
	text, untagged := bytes.CutPrefix(line, []byte("* "))
	switch {
	case untagged && hasWord(text, "OK"):
	case untagged && hasWord(text, "PREAUTH"):
		return nil, errors.New("it greets with PREAUTH: it takes anybody for logged in")
	case untagged && hasWord(text, "BYE"):
		return nil, fmt.Errorf("it says %q", clip(line))
	default:
		return nil, fmt.Errorf("it greets with %q, which is not IMAP", clip(line))
	}
	if _, inside, _, ok := code(line); ok {
		return strings.Fields(string(inside)), nil
	}
	return nil, nil
}

func capabilities(u codec.Upstream) ([]string, error) {
	lines, err := run(u, "CAPABILITY")
	for _, line := range lines {
		if text, ok := cutWord(strings.TrimPrefix(line, "* "), "CAPABILITY"); ok {
			return strings.Fields(text), err
		}
	}
	if err == nil {
		err = errors.New("it does not say what it is capable of")
	}
	return nil, err
}

// ourTag is that of our own commands, of which there is one at a time.
const ourTag = "starttlsd"

// maxLines bounds what a backend may say to one command.
const maxLines = 100

// run runs a command, and returns the lines before its result.
func run(u codec.Upstream, text string) (lines []string, err error) {
	verb, _, _ := strings.Cut(text, " ")
	if _, err := io.WriteString(u, ourTag+" "+text+"\r\n"); err != nil {
		return nil, fmt.Errorf("sending %s: %w", verb, err)
	}
	for range maxLines {
		line, err := u.ReadLine()
		if err != nil {
			return nil, fmt.Errorf("waiting for the reply to %s: %w", verb, err)
		}
		if status, ok := cutWord(string(line), ourTag); ok {
			if !hasWord([]byte(status), "OK") {
				return nil, fmt.Errorf("it answers %s with %q", verb, clip(line))
			}
			return lines, nil
		}
		lines = append(lines, string(line))
		if err := skipLiterals(u, line); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("it answers %s with more than %d lines", verb, maxLines)
}

// skipLiterals reads to the end of a reply whose line is there.
func skipLiterals(u codec.Upstream, line []byte) error {
	for range maxLines {
		size, _, lit := literalAt(line)
		if !lit {
			return nil
		}
		if size > maxReply {
			break
		}
		if _, err := io.CopyN(io.Discard, u, int64(size)); err != nil {
			return err
		}
		var err error
		if line, err = u.ReadLine(); err != nil {
			return err
		}
	}
	return errors.New("it sends literals before the login that are too large")
}

// clip is a piece of a line for the log.
func clip(line []byte) []byte { return line[:min(len(line), 100)] }
