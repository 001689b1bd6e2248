package sieve

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
	if b.reply > 0 {
		n := min(len(in), b.reply)
		b.reply -= n
		return n, append(out, in[:n]...), codec.Content
	}
	n, line, status := b.line.Next(in, maxReply)
	if status == codec.LineMore {
		return n, out, codec.NeedMore
	}
	if status != codec.LineOK {
		out, action := s.broken(out)
		return n, out, action
	}
	size, _, lit := literalAt(line)
	behind := b.partial // line is behind a literal
	b.partial, b.reply = lit, size
	switch {
	case behind && lit:
		return n, say(out, string(line)), codec.Content
	case behind:
		out = say(out, string(line))
		return n, out, s.next()
	case bytes.HasPrefix(line, []byte{'"'}), bytes.HasPrefix(line, []byte{'{'}): // a SASL challenge
		if s.phase != waiting {
			b.partial = false
			break
		}
		b.challenge = true
		if out = say(out, string(line)); lit {
			return n, out, codec.Content
		}
		return n, out, s.next()
	}
	if !lit {
		return s.result(n, line, out)
	}
	if s.due(word(line)) { // with a text that is a literal
		b.challenge, b.verdict = false, word(line)
		return n, say(out, string(line)), codec.Content
	}
	b.partial = false
	out, action := s.broken(out)
	return n, out, action
}

// next is what follows a reply that is complete with its literal.
func (s *Session) next() codec.Action {
	b := s.backend
	if b.challenge {
		b.challenge = false
		s.to(answer)
		return codec.Continue
	}
	return s.verdict(b.verdict)
}

// result is a reply that is one line.
func (s *Session) result(n int, line, out []byte) (int, []byte, codec.Action) {
	if verdict := word(line); s.due(verdict) {
		return n, say(out, string(line)), s.verdict(verdict)
	}
	out, action := s.broken(out)
	return n, out, action
}

// due reports whether the backend may say this now.
func (s *Session) due(word string) bool {
	has := s.backend.has
	return word == "BYE" || word == "NO" && has || word == "OK" && has && s.phase == waiting
}

// verdict is the end of AUTHENTICATE, or of the session. From a login that has
// succeeded on, nothing is looked at any more.
func (s *Session) verdict(word string) codec.Action {
	b := s.backend
	b.has = false
	switch word {
	case "OK":
		s.to(over)
		return codec.Opaque
	case "BYE":
		s.to(over)
		return codec.Close
	}
	if b.long { // what the backend has cut off may be a command to it, which it is about to answer
		s.to(over)
		return codec.Close
	}
	if s.phase == literal { // what the client has yet to send of the command
		s.swallow, s.swallowing = b.left, true
	} else if s.phase == rest {
		s.swallowing = true
	}
	s.junk++
	s.line.Reset()
	s.to(dialogue)
	return codec.Continue
}

// broken ends a session whose backend does not speak ManageSieve.
func (s *Session) broken(out []byte) ([]byte, codec.Action) {
	if s.backend.partial {
		s.to(over)
		return out, codec.Close
	}
	return s.close(out, goodbyes[codec.Unavailable])
}

// word is the first word of a reply.
func word(line []byte) string {
	end := bytes.IndexAny(line, " (")
	if end < 0 {
		end = len(line)
	}
	return codec.Upper(line[:end])
}

// Introduce implements codec.Relayed.
func (s *Session) Introduce(u codec.Upstream, _ *codec.Client) error {
	list, offered, err := readList(u)
	if err != nil {
		return err
	}
	if u.MustStartTLS() {
		if !offered {
			return errors.New("it does not offer STARTTLS; give it a certificate, or use tcp:// or tls://")
		}
		if _, err := io.WriteString(u, "STARTTLS\r\n"); err != nil {
			return err
		}
		line, err := u.ReadLine()
		if err != nil {
			return fmt.Errorf("waiting for the reply to STARTTLS: %w", err)
		}
		if word(line) != "OK" {
			return fmt.Errorf("it answers STARTTLS with %q", clip(line))
		}
		if err := u.StartTLS(); err != nil {
			return err
		}
		if list, _, err = readList(u); err != nil { // what was said in clear is forgotten
			return err
		}
	}
	s.backend = &backend{list: list}
	return nil
}

// maxCapabilities and maxList bound the backend's list.
const (
	maxCapabilities = 100
	maxList         = 16 << 10
)

// readList reads the backend's capabilities up to OK, and returns those that are true
// of us as well.
func readList(u codec.Upstream) (list []byte, offersTLS bool, err error) {
	for range maxCapabilities {
		line, err := readReply(u)
		if err != nil {
			return nil, false, fmt.Errorf("waiting for its capabilities: %w", err)
		}
		if line[0] != '"' && line[0] != '{' {
			if word(line) != "OK" {
				return nil, false, fmt.Errorf("it says %q instead of its capabilities", clip(line))
			}
			return list, offersTLS, nil
		}
		name := name(line)
		offersTLS = offersTLS || name == "STARTTLS"
		if list = filter(name, line, list); len(list) > maxList {
			break
		}
	}
	return nil, false, errors.New("its list of capabilities is too long")
}

// readReply reads a line with the literals in it.
func readReply(u codec.Upstream) ([]byte, error) {
	var whole []byte
	for {
		line, err := u.ReadLine()
		if err != nil {
			return nil, err
		}
		whole = append(whole, line...)
		size, _, lit := literalAt(line)
		if !lit {
			if len(whole) == 0 {
				return nil, errors.New("an empty line")
			}
			return whole, nil
		}
		if len(whole)+size > maxList {
			return nil, errors.New("a literal that is too large")
		}
		text := make([]byte, size)
		if _, err := io.ReadFull(u, text); err != nil {
			return nil, err
		}
		whole = append(append(whole, "\r\n"...), text...)
	}
}

// name is the first string of a capability, in upper case.
func name(line []byte) string {
	if line[0] == '"' {
		name, _, _ := strings.Cut(string(line[1:]), `"`)
		return codec.Upper(name)
	}
	first, rest, _ := bytes.Cut(line, []byte("\r\n"))
	size, _, _ := literalAt(first)
	return codec.Upper(rest[:min(size, len(rest))])
}

// filter appends a capability, unless it is about TLS, which ends here, or the way back
// before login, where nobody would filter any more; and of the SASL mechanisms those
// that work through us.
func filter(name string, line, list []byte) []byte {
	switch name {
	case "STARTTLS", "XCLIENT", "XFORWARD", "COMPRESS", "UNAUTHENTICATE":
		return list
	case "SASL":
		_, value, _ := strings.Cut(string(line), " ")
		return say(list, `"SASL" "`+string(codec.PassSASL([]byte(strings.Trim(value, `" `))))+`"`)
	}
	return say(list, string(line))
}

// clip is a piece of a line for the log.
func clip(line []byte) []byte { return line[:min(len(line), 100)] }
