package nntp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"starttlsd/codec"
)

// relay is what a session with a backend has besides.
type relay struct {
	asked     codec.Pipeline[kind]
	line      codec.Line // of the backend's
	block     *codec.Dot // what is left of a list or an article, nil without
	midway    bool       // a reply has begun and not ended
	stream    bool       // the last MODE was STREAM
	streaming bool       // and the backend does
}

// body is an article of the client's.
type body struct {
	dot     codec.Dot
	kind    kind   // of its reply
	octet   int64  // swallowed
	why     string // refused before it came; "" for its faults
	refusal string // the reply that it is not to be sent again
}

const (
	maxReply     = 4 << 10
	maxSwallowed = 64 << 20 // of a refused article
)

// stepContent passes an article on, as long as it is such that the next server cannot
// take a part of it for commands. From the first fault on it gets nothing more, not
// even the end.
func (s *Session) stepContent(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	b := s.body
	n, done := b.dot.Skip(in)
	if s.phase == content && b.dot.Flaws()&^codec.LongLine != 0 {
		s.to(swallow)
	}
	switch {
	case s.phase == content && done:
		s.relay.asked.Add(b.kind)
		s.body = nil
		s.to(dialogue)
		return n, append(up, in[:n]...), out, codec.Continue
	case s.phase == content:
		return n, append(up, in[:n]...), out, codec.Content
	}
	if b.octet += int64(n); !done && b.octet < maxSwallowed {
		return n, up, out, codec.Content
	}
	var action codec.Action
	if s.body = nil; done && b.why != "" {
		s.to(dialogue)
		out, action = s.refuse(out, b.why)
	} else { // the backend has a half of it
		code := "400"
		if done && s.relay.asked.Len() == 0 { // else there are replies to come before
			code = b.refusal
		}
		out, action = s.close(out, code+" NUL, bare CR or bare LF in the article")
	}
	return n, up, out, action
}

// Reply implements codec.Relayed.
func (s *Session) Reply(in, out []byte) (int, []byte, codec.Action) {
	r := s.relay
	if r.block != nil {
		n, done := r.block.Skip(in)
		out = append(out, in[:n]...)
		if !done {
			return n, out, codec.Content
		}
		r.block = nil
		return n, out, s.answered(0)
	}
	n, line, status := r.line.Next(in, maxReply)
	if status == codec.LineMore {
		return n, out, codec.NeedMore
	}
	if status == codec.LineOK && r.midway { // in a list that is filtered
		out = s.filter(line, out)
		if string(line) != "." {
			return n, out, codec.Content
		}
		return n, out, s.answered(0)
	}
	code, ok := parseCode(line)
	if status != codec.LineOK || !ok || r.asked.Len() == 0 && code != 400 {
		out, action := s.broken(out)
		return n, out, action
	}
	out = say(out, string(line))
	switch {
	case code == 400: // the backend is about to close (RFC 3977 §3.2.1)
		s.to(over)
		return n, out, codec.Close
	case *r.asked.First() == streamed && code != 239 && code != 439: // it may have taken the article for commands
		s.to(over)
		return n, out, codec.Close
	case multiline(code, *r.asked.First()):
		r.midway = true
		if *r.asked.First() != capable {
			r.block = new(codec.Dot)
		}
		return n, out, codec.Content
	}
	return n, out, s.answered(code)
}

// parseCode reads the code of a reply (RFC 3977 §3.2).
func parseCode(line []byte) (code int, ok bool) {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' {
		return 0, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false
		}
		code = code*10 + int(c-'0')
	}
	return code, code >= 100 && code < 600
}

// multiline reports whether a list or an article follows the reply (RFC 3977 §3.2,
// RFC 2980; 211 is the one code whose meaning depends on the command).
func multiline(code int, k kind) bool {
	switch code {
	case 100, 101, 215, 220, 221, 222, 224, 225, 230, 231:
		return true
	case 211:
		return k != group
	}
	return false
}

// broken ends a session whose backend does not speak NNTP.
func (s *Session) broken(out []byte) ([]byte, codec.Action) {
	if s.relay.midway {
		s.to(over)
		return out, codec.Close
	}
	return s.close(out, goodbyes[codec.Unavailable])
}

// answered takes note of a reply that is complete. 0 is the code of one that was a list.
func (s *Session) answered(code int) codec.Action {
	r := s.relay
	k := *r.asked.First()
	r.asked.Done()
	r.midway = false
	switch {
	case k == post && (code == 340 || code == 335):
		s.body = &body{kind: article, refusal: "441"}
		if code == 335 {
			s.body.refusal = "437"
		}
		s.to(content)
	case k == login && code == 383:
		r.asked.Add(login)
		s.to(answer)
	case k == quit:
		s.to(over)
		return codec.Close
	case k == mode:
		if code == 200 || code == 201 {
			s.reader = s.reader || !r.stream
		}
		r.streaming = r.stream && code == 203
		s.to(dialogue)
	case k == post, k == login:
		if k == login && code/100 != 2 && code/100 != 3 {
			s.junk++
		}
		s.line.Reset()
		s.to(dialogue)
	case (k == article || k == streamed) && code/100 == 2, k == other && code == 0:
		s.articles++
		s.junk, s.bad = 0, 0
	}
	return codec.Continue
}

// filter passes on a line of the backend's capabilities, as far as it is true of us as
// well: TLS ends here. Before the end of the list comes what is ours.
func (s *Session) filter(line, out []byte) []byte {
	word, params := cutWord(line)
	switch codec.Upper(word) {
	case ".":
		if !s.secured && s.cfg.TLS {
			out = say(out, "STARTTLS")
		}
	case "STARTTLS", "COMPRESS", "XCLIENT":
		return out
	case "AUTHINFO":
		if !s.secured {
			return out
		}
	case "SASL":
		mechanisms := codec.PassSASL(params)
		if len(mechanisms) == 0 || !s.secured {
			return out
		}
		return say(out, "SASL "+string(mechanisms))
	}
	return say(out, string(line))
}

// Introduce implements codec.Relayed.
func (s *Session) Introduce(u codec.Upstream, _ *codec.Client) error {
	if err := expect(u, "its greeting", "200", "201"); err != nil {
		return err
	}
	if u.MustStartTLS() {
		if err := upgrade(u); err != nil {
			return err
		}
	}
	if s.reader {
		if err := run(u, "MODE READER", "200", "201"); err != nil {
			return err
		}
	}
	s.relay = &relay{}
	return nil
}

func upgrade(u codec.Upstream) error {
	if err := run(u, "CAPABILITIES", "101"); err != nil {
		return err
	}
	offered, err := offersTLS(u)
	if err != nil {
		return err
	}
	if !offered {
		return errors.New("it does not offer STARTTLS; give it a certificate, or use tcp:// or tls://")
	}
	if err := run(u, "STARTTLS", "382"); err != nil {
		return err
	}
	return u.StartTLS()
}

func run(u codec.Upstream, command string, want ...string) error {
	if _, err := io.WriteString(u, command+"\r\n"); err != nil {
		return fmt.Errorf("sending %s: %w", command, err)
	}
	return expect(u, "the reply to "+command, want...)
}

func expect(u codec.Upstream, what string, want ...string) error {
	line, err := u.ReadLine()
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", what, err)
	}
	for _, code := range want {
		if bytes.HasPrefix(line, []byte(code)) {
			return nil
		}
	}
	return fmt.Errorf("%s is %q, not %s", what, line[:min(len(line), 100)], strings.Join(want, " or "))
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
		offered = offered || codec.Is(line, "STARTTLS")
	}
	return false, fmt.Errorf("it has more than %d capabilities", maxCapabilities)
}
