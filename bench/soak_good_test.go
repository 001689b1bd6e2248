package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/smtp"
	"time"

	"starttlsd/engine/enginetest"
)

// soakKinds are the clients of the soak. A session's error is what the server
// did wrong; evil clients have expectations too.
var soakKinds = map[string]struct {
	weight  int
	session func(*soak) error
}{
	"DATA":         {12, func(s *soak) error { return s.deliver(byData, 3, 16<<10) }},
	"BDAT":         {8, func(s *soak) error { return s.deliver(byChunks, 3, 16<<10) }},
	"pipelined":    {8, func(s *soak) error { return s.deliver(pipelined, 3, 16<<10) }},
	"BDAT at once": {6, func(s *soak) error { return s.deliver(atOnce, 3, 16<<10) }},
	"big DATA":     {2, func(s *soak) error { return s.deliver(byData, 1, 1<<20) }},
	"big BDAT":     {1, func(s *soak) error { return s.deliver(byChunks, 1, 1<<20) }},
	"slow writer":  {2, func(s *soak) error { return s.deliver(slowly, 1, 8<<10) }},
	"slow reader":  {2, (*soak).readSlowly},

	"reset":                       {10, (*soak).reset},
	"silent after STARTTLS":       {4, (*soak).silentAfterSTARTTLS},
	"garbage after STARTTLS":      {4, (*soak).garbageAfterSTARTTLS},
	"half a ClientHello, FIN":     {2, (*soak).halfHello},
	"plaintext on TLS port":       {2, (*soak).plaintextOnTLSPort},
	"injection":                   {4, (*soak).injection},
	"HTTP":                        {4, (*soak).http},
	"trickled command":            {2, (*soak).trickle},
	"stalled body":                {2, (*soak).stalledBody},
	"truncated body":              {4, (*soak).truncatedBody},
	"replies never read":          {1, (*soak).neverRead},
	"garbage instead of a record": {3, (*soak).garbageRecord},
}

// open connects by STARTTLS, with implicit TLS or in plaintext, with any version
// and with or without resumption.
func (s *soak) open() (*smtp.Client, error) {
	cfg := s.configs[rand.IntN(len(s.configs))]
	switch rand.IntN(5) {
	case 0:
		return enginetest.Dial(s.starttls)
	case 1, 2:
		nc, err := net.DialTimeout("tcp", s.implicit, dialTime)
		if err != nil {
			return nil, err
		}
		return enginetest.NewClient(tls.Client(nc, cfg))
	default:
		c, err := enginetest.Dial(s.starttls)
		if err != nil {
			return nil, err
		}
		return c, c.StartTLS(cfg)
	}
}

// deliver sends messages in one session.
func (s *soak) deliver(how func(*smtp.Client, []byte) error, messages, size int) error {
	c, err := s.open()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := checkExtensions(c); err != nil {
		return err
	}
	for range messages {
		content := s.message(rand.IntN(size + 1))
		if err := how(c, content); err != nil {
			return err
		}
		s.acknowledged(content)
	}
	if state, ok := c.TLSConnectionState(); ok && state.DidResume {
		s.mu.Lock()
		s.resumed++
		s.mu.Unlock()
	}
	return c.Quit()
}

// checkExtensions says EHLO, unless it has been said, and wants STARTTLS offered
// in plaintext on the one port, and nowhere else.
func checkExtensions(c *smtp.Client) error {
	if ok, _ := c.Extension("CHUNKING"); !ok {
		return fmt.Errorf("no CHUNKING")
	}
	offered, _ := c.Extension("STARTTLS")
	if _, secure := c.TLSConnectionState(); offered == secure {
		return fmt.Errorf("STARTTLS offered: %v, TLS: %v", offered, secure)
	}
	return nil
}

const envelope = "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"

// send writes text as it is and wants replies with the codes.
func send(c *smtp.Client, text string, codes ...int) error {
	if _, err := io.WriteString(c.Text.W, text); err != nil {
		return err
	}
	if err := c.Text.W.Flush(); err != nil {
		return err
	}
	for i, code := range codes {
		if _, _, err := c.Text.ReadResponse(code); err != nil {
			return fmt.Errorf("reply %d to %.60q: %w", i+1, text, err)
		}
	}
	return nil
}

func byData(c *smtp.Client, content []byte) error { return enginetest.Deliver(c, content) }

// byChunks sends BDAT after BDAT.
func byChunks(c *smtp.Client, content []byte) error {
	if err := send(c, envelope, 250, 250); err != nil {
		return err
	}
	for rest := content; ; {
		n := min(1+rand.IntN(len(content)), len(rest))
		chunk, last := rest[:n], ""
		if rest = rest[n:]; len(rest) == 0 {
			last = " LAST"
		}
		if err := send(c, fmt.Sprintf("BDAT %d%s\r\n%s", n, last, chunk), 250); err != nil || last != "" {
			return err
		}
	}
}

// pipelined sends what RFC 2920 allows to send together, the next command behind
// the message included.
func pipelined(c *smtp.Client, content []byte) error {
	if err := send(c, "NOOP\r\n"+envelope+"DATA\r\n", 250, 250, 250, 354); err != nil {
		return err
	}
	return send(c, stuffed(content)+".\r\nNOOP\r\nRSET\r\n", 250, 250, 250)
}

// stuffed is content with the dots of DATA.
func stuffed(content []byte) string {
	out := make([]byte, 0, len(content)+len(content)/16)
	for i, b := range content {
		if b == '.' && (i == 0 || content[i-1] == '\n') {
			out = append(out, '.')
		}
		out = append(out, b)
	}
	return string(out)
}

// atOnce sends the whole transaction in one piece.
func atOnce(c *smtp.Client, content []byte) error {
	return send(c, fmt.Sprintf("%sBDAT %d LAST\r\n%sNOOP\r\n", envelope, len(content), content), 250, 250, 250, 250)
}

// slowly pauses within the message, but not for as long as data_stall.
func slowly(c *smtp.Client, content []byte) error {
	w, err := enginetest.Begin(c)
	if err != nil {
		return err
	}
	for rest := content; len(rest) > 0; {
		n := min(1+len(content)/10, len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			return err
		}
		if err := c.Text.W.Flush(); err != nil {
			return err
		}
		rest = rest[n:]
		time.Sleep(100 * time.Millisecond)
	}
	return w.Close()
}

// readSlowly asks for more than the sockets hold before it reads the first
// reply. All have to come, in order.
func (s *soak) readSlowly() error {
	c, err := s.open()
	if err != nil {
		return err
	}
	defer c.Close()
	const rounds = 20_000
	written := make(chan error, 1)
	go func() {
		for range rounds {
			if _, err := io.WriteString(c.Text.W, "HELP\r\nNOOP\r\nVRFY bob\r\n"); err != nil {
				written <- err
				return
			}
		}
		written <- c.Text.W.Flush()
	}()
	time.Sleep(500 * time.Millisecond)
	for i := range rounds {
		for _, code := range []int{214, 250, 252} {
			if _, _, err := c.Text.ReadResponse(code); err != nil {
				return fmt.Errorf("round %d: %w", i, err)
			}
		}
	}
	if err := <-written; err != nil {
		return err
	}
	return c.Quit()
}
