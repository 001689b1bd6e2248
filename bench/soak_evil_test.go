package main

import (
	"bytes"
	crand "crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"starttlsd/engine/enginetest"
)

// evilPatience is how long an evil client waits for its end, which the limits of
// the soak's configuration bring in less than half of that.
const evilPatience = 20 * time.Second

// visit connects in plaintext, reads the greeting and writes text.
func (s *soak) visit(text string) (net.Conn, error) {
	nc, err := net.DialTimeout("tcp", s.starttls, dialTime)
	if err != nil {
		return nil, err
	}
	_ = nc.SetDeadline(time.Now().Add(evilPatience))
	if err := talk(nc, "", "220 "); err != nil {
		_ = nc.Close()
		return nil, err
	}
	_, err = io.WriteString(nc, text)
	return nc, err
}

// goAhead is visit up to the go-ahead for TLS.
func (s *soak) goAhead() (net.Conn, error) {
	nc, err := s.visit("")
	if err != nil {
		return nil, err
	}
	if err := talk(nc, "STARTTLS\r\n", "220 "); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return nc, nil
}

// lastWords reads to the end of the connection, and closes it. That it is not
// ended by the server is an error; how it is ended is not.
func lastWords(nc net.Conn) ([]byte, error) {
	defer nc.Close()
	words, err := io.ReadAll(nc)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return words, fmt.Errorf("not ended after %v", evilPatience)
	}
	return words, nil
}

// checkLastWords wants the server to say want at the end, and nothing else.
func checkLastWords(nc net.Conn, want string) error {
	words, err := lastWords(nc)
	if err == nil && (!bytes.HasPrefix(words, []byte(want)) || bytes.Count(words, []byte("\n")) != 1) {
		err = fmt.Errorf("got %q, want %q", words, want)
	}
	return err
}

// checkNoPlaintext wants alerts of TLS at most, which are short records.
func checkNoPlaintext(nc net.Conn) error {
	words, err := lastWords(nc)
	if err != nil {
		return err
	}
	for rest := words; len(rest) > 0; {
		const header, alert, application = 5, 21, 23 // TLS 1.3 dresses an alert up as application data
		if len(rest) < header || rest[0] != alert && rest[0] != application || rest[3] != 0 || len(rest) < header+int(rest[4]) {
			return fmt.Errorf("got %q, not records of TLS", words)
		}
		rest = rest[header+int(rest[4]):]
	}
	return nil
}

// reset delivers and breaks the connection at a random moment.
func (s *soak) reset() error {
	nc, err := net.DialTimeout("tcp", s.starttls, dialTime)
	if err != nil {
		return err
	}
	_ = nc.(*net.TCPConn).SetLinger(0) // closing resets
	broken := time.AfterFunc(rand.N(40*time.Millisecond), func() { _ = nc.Close() })
	defer broken.Stop()
	defer nc.Close()
	c, err := enginetest.NewClient(nc)
	if err != nil || c.StartTLS(s.configs[rand.IntN(len(s.configs))]) != nil {
		return nil
	}
	for {
		content := s.message(rand.IntN(128 << 10))
		if enginetest.Deliver(c, content) != nil {
			return nil
		}
		s.acknowledged(content)
	}
}

func (s *soak) silentAfterSTARTTLS() error {
	nc, err := s.goAhead()
	if err != nil {
		return err
	}
	return checkNoPlaintext(nc)
}

func (s *soak) garbageAfterSTARTTLS() error {
	nc, err := s.goAhead()
	if err != nil {
		return err
	}
	_, _ = nc.Write(garbage())
	return checkNoPlaintext(nc)
}

// garbage looks like the beginning of a handshake in one of two cases.
func garbage() []byte {
	b := make([]byte, 1+rand.IntN(2000))
	_, _ = crand.Read(b)
	if rand.IntN(2) == 0 {
		b = append([]byte{22, 3, 1, byte(rand.IntN(8)), byte(rand.Int()), 1, 0}, b...)
	}
	return b
}

// halfHello ends our side within the ClientHello.
func (s *soak) halfHello() error {
	nc, err := s.goAhead()
	if err != nil {
		return err
	}
	_, _ = io.WriteString(nc, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	_ = nc.(*net.TCPConn).CloseWrite()
	return checkNoPlaintext(nc)
}

func (s *soak) plaintextOnTLSPort() error {
	nc, err := net.DialTimeout("tcp", s.implicit, dialTime)
	if err != nil {
		return err
	}
	_ = nc.SetDeadline(time.Now().Add(evilPatience))
	_, _ = io.WriteString(nc, "EHLO evil.example\r\n")
	return checkNoPlaintext(nc)
}

func (s *soak) injection() error {
	nc, err := s.visit("STARTTLS\r\n" + envelope)
	if err != nil {
		return err
	}
	return checkLastWords(nc, "554 5.5.0 ")
}

func (s *soak) http() error {
	nc, err := s.visit("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n" + envelope + "DATA\r\nSubject: evil\r\n\r\n.\r\n")
	if err != nil {
		return err
	}
	return checkLastWords(nc, "554 5.5.1 ")
}

// trickle never completes a command.
func (s *soak) trickle() error {
	nc, err := s.visit("EHLO ")
	if err != nil {
		return err
	}
	go func() {
		for {
			if _, err := io.WriteString(nc, "a"); err != nil {
				return // lastWords has closed it
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	return checkLastWords(nc, "421 4.4.2 ")
}

// beginEvil is a message under way, under TLS, which is never to be delivered.
func (s *soak) beginEvil() (net.Conn, *tls.Conn, error) {
	nc, err := s.goAhead()
	if err != nil {
		return nil, nil, err
	}
	tc := tls.Client(nc, s.configs[rand.IntN(len(s.configs))])
	err = talk(tc, "EHLO evil.example\r\n", "250 ")
	for _, line := range strings.SplitAfter(envelope, "\r\n")[:2] {
		if err == nil {
			err = talk(tc, line, "250 ")
		}
	}
	if err == nil {
		err = talk(tc, "DATA\r\n", "354 ")
	}
	if err == nil {
		_, err = io.WriteString(tc, "Subject: evil\r\n\r\nincomplete\r\n")
	}
	if err != nil {
		_ = nc.Close()
	}
	return nc, tc, err
}

func (s *soak) stalledBody() error {
	_, tc, err := s.beginEvil()
	if err != nil {
		return err
	}
	return checkLastWords(tc, "421 4.4.2 ")
}

// truncatedBody ends the stream within a message, with or without close_notify.
func (s *soak) truncatedBody() error {
	nc, tc, err := s.beginEvil()
	if err != nil {
		return err
	}
	if rand.IntN(2) == 0 {
		_ = tc.CloseWrite()
	}
	_ = nc.(*net.TCPConn).CloseWrite()
	return checkNoPlaintext(nc)
}

// garbageRecord breaks TLS within a message.
func (s *soak) garbageRecord() error {
	nc, _, err := s.beginEvil()
	if err != nil {
		return err
	}
	_, _ = io.WriteString(nc, "\r\n.\r\nQUIT\r\n")
	return checkNoPlaintext(nc)
}

// neverRead asks for replies until it is cut off.
func (s *soak) neverRead() error {
	nc, err := s.visit("")
	if err != nil {
		return err
	}
	defer nc.Close()
	for commands := strings.Repeat("HELP\r\n", 1000); ; {
		if _, err := io.WriteString(nc, commands); errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("not ended after %v", evilPatience)
		} else if err != nil {
			return nil
		}
	}
}
