package pop3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"starttlsd/codec"
)

// maxReply is the longest line of the backend's before login.
const maxReply = 16 << 10

// Reply implements codec.Relayed.
func (s *Session) Reply(in, out []byte) (int, []byte, codec.Action) {
	b := s.backend
	n, line, status := b.line.Next(in, maxReply)
	switch {
	case status == codec.LineMore:
		return n, out, codec.NeedMore
	case status == codec.LineOK && b.midway:
		out = filter(line, out)
		if string(line) != "." {
			return n, out, codec.Content
		}
		b.midway = false
		s.answered()
		return n, out, codec.Continue
	}
	good, bad := begins(line, "+OK"), begins(line, "-ERR")
	more := bytes.HasPrefix(line, []byte("+ ")) || string(line) == "+"
	switch {
	case status != codec.LineOK || b.has == nothing || s.phase != waiting && !bad:
		out, action := s.broken(out)
		return n, out, action
	case good && (b.has == login || b.has == sasl):
		b.has = nothing
		s.to(over)
		return n, say(out, string(line)), codec.Opaque
	case good && b.has == list:
		b.midway = true
		return n, say(out, string(line)), codec.Content
	case more && b.has == sasl:
		s.to(answer)
		return n, say(out, string(line)), codec.Continue
	case good:
	case bad && b.long:
		s.to(over)
		return n, say(out, string(line)), codec.Close
	case bad:
		if b.has == login || b.has == sasl {
			s.junk++
		}
	default:
		out, action := s.broken(out)
		return n, out, action
	}
	s.answered()
	return n, say(out, string(line)), codec.Continue
}

// begins reports whether the first word of line is this one.
func begins(line []byte, word string) bool {
	first, _, _ := bytes.Cut(line, []byte{' '})
	return string(first) == word
}

func (s *Session) answered() {
	s.backend.has = nothing
	s.line.Reset()
	s.to(dialogue)
}

// broken ends a session whose backend does not speak POP3.
func (s *Session) broken(out []byte) ([]byte, codec.Action) {
	if s.backend.midway {
		s.to(over)
		return out, codec.Close
	}
	return s.close(out, goodbyes[codec.Unavailable])
}

// filter passes on a line of the backend's capabilities, as far as it is true of us as
// well: TLS ends here.
func filter(line, out []byte) []byte {
	word, params, _ := strings.Cut(string(line), " ")
	switch codec.Upper(word) {
	case "STLS", "XCLIENT", "XFORWARD", "COMPRESS":
		return out
	case "SASL":
		mechanisms := codec.PassSASL([]byte(params))
		if len(mechanisms) == 0 {
			return out
		}
		return say(out, "SASL "+string(mechanisms))
	}
	return say(out, string(line))
}

// Introduce implements codec.Relayed.
func (s *Session) Introduce(u codec.Upstream, _ *codec.Client) error {
	if err := expectOK(u, "its greeting"); err != nil {
		return err
	}
	if u.MustStartTLS() {
		if err := run(u, "CAPA"); err != nil {
			return err
		}
		offered, err := offersTLS(u)
		if err != nil {
			return err
		}
		if !offered {
			return errors.New("it does not offer STLS; give it a certificate, or use tcp:// or tls://")
		}
		if err := run(u, "STLS"); err != nil {
			return err
		}
		if err := u.StartTLS(); err != nil {
			return err
		}
	}
	s.backend = &backend{}
	return nil
}

func run(u codec.Upstream, command string) error {
	if _, err := io.WriteString(u, command+"\r\n"); err != nil {
		return fmt.Errorf("sending %s: %w", command, err)
	}
	return expectOK(u, "the reply to "+command)
}

func expectOK(u codec.Upstream, what string) error {
	line, err := u.ReadLine()
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", what, err)
	}
	if !begins(line, "+OK") {
		return fmt.Errorf("%s is %q, not +OK", what, line[:min(len(line), 100)])
	}
	return nil
}

// maxCapabilities bounds the backend's list.
const maxCapabilities = 100

// offersTLS reads the list of capabilities.
func offersTLS(u codec.Upstream) (offered bool, err error) {
	for range maxCapabilities {
		line, err := u.ReadLine()
		if err != nil {
			return false, fmt.Errorf("waiting for its capabilities: %w", err)
		}
		if string(line) == "." {
			return offered, nil
		}
		offered = offered || codec.Is(line, "STLS")
	}
	return false, fmt.Errorf("it has more than %d capabilities", maxCapabilities)
}
