package ftp

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"starttlsd/codec"
)

// Introduce implements codec.Relayed. Where the backend's control connection is under
// TLS, so are its data connections.
func (s *Session) Introduce(u codec.Upstream, c *codec.Client) error {
	if err := expect(u, "its greeting", 220); err != nil {
		return err
	}
	if u.MustStartTLS() {
		if err := run(u, "AUTH TLS", 234); err != nil {
			return fmt.Errorf("%w; give it a certificate, or use tcp:// or tls://", err)
		}
		if err := u.StartTLS(); err != nil {
			return err
		}
	}
	if u.Secure() {
		if err := run(u, "PBSZ 0", 200); err != nil {
			return err
		}
		if err := run(u, "PROT P", 200); err != nil {
			return err
		}
	}
	s.relay = &relay{data: c.Data}
	return nil
}

func run(u codec.Upstream, command string, want int) error {
	if _, err := io.WriteString(u, command+"\r\n"); err != nil {
		return fmt.Errorf("sending %s: %w", command, err)
	}
	return expect(u, "the reply to "+command, want)
}

// maxLines bounds a reply while the session is introduced.
const maxLines = 200

// expect reads a whole reply.
func expect(u codec.Upstream, what string, want int) error {
	first := ""
	for i := range maxLines {
		line, err := u.ReadLine()
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		code, more, ok := parseReply(line)
		if i == 0 {
			first = string(line[:min(len(line), 100)])
			if !ok || code != want {
				return fmt.Errorf("%s is %q, not %d", what, first, want)
			}
		}
		if ok && !more && strings.HasPrefix(first, strconv.Itoa(code)) {
			return nil
		}
	}
	return fmt.Errorf("%s has more than %d lines", what, maxLines)
}
