package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// transfer is mode Transfer.
func (r *run) transfer() {
	one := r.o.Target.protocol.transfer.one(&r.o)
	r.talk(func(c *conn) error {
		n, err := one(c)
		if err == nil {
			r.bytes.Add(int64(n))
		}
		return err
	}, 0)
}

// checkTransfer sees that something can be transferred, where it is to be.
func (o *Options) checkTransfer() error {
	p := o.Target.protocol
	switch {
	case o.Mode != Transfer && o.Upload:
		return fmt.Errorf("mode %s has no upload", o.Mode)
	case o.File != "" && (o.Mode != Transfer || p.transfer == nil || !p.transfer.files):
		return errors.New("a file is for transfers with ftp")
	case o.Mode != Transfer:
		return nil
	case p.transfer == nil:
		return fmt.Errorf("mode transfer is not possible with %s", p.scheme)
	case o.User == "":
		return errors.New("mode transfer needs a user and a password")
	case !printable(o.File):
		return errors.New("file: use printable ASCII only")
	}
	return nil
}

func imapBegin(o *Options) []exchange {
	if o.Upload {
		return nil
	}
	return []exchange{{"a SELECT INBOX\r\n", "a OK"}}
}

func imapTransfer(o *Options) func(*conn) (int, error) {
	if !o.Upload {
		return (*conn).download
	}
	command := exchange{fmt.Sprintf("a APPEND INBOX {%d}\r\n", o.Size), "+"}
	content := []byte(message(o.Size) + "\r\n")
	return func(c *conn) (int, error) { return c.upload(command, content) }
}

// upload appends a message (RFC 9051 §6.3.12), with the line's end behind it.
func (c *conn) upload(command exchange, content []byte) (int, error) {
	if err := c.do(command); err != nil {
		return 0, err
	}
	if err := c.send(content); err != nil {
		return 0, err
	}
	if _, err := c.reply("a OK"); err != nil {
		return 0, fmt.Errorf("after the message: %w", err)
	}
	return len(content) - len("\r\n"), nil
}

// download fetches the message, and counts the bytes of its literal.
func (c *conn) download() (n int, err error) {
	const command = "a FETCH 1 BODY[]\r\n"
	if err := c.say(command); err != nil {
		return 0, err
	}
	n, err = c.literals()
	if err == nil {
		_, err = c.reply("a OK")
	}
	if err != nil {
		return n, fmt.Errorf("%.30q: %w", command, err)
	}
	if want := c.run.o.Size; n == 0 || want > 0 && n != want {
		return n, &failure{Wrong, fmt.Errorf("the message has %d bytes, want %d", n, want)}
	}
	return n, nil
}

// literals reads up to the tagged line, and returns what all literals together have.
func (c *conn) literals() (n int, err error) {
	for {
		line, err := c.line()
		if err != nil {
			return n, err
		}
		if bytes.HasPrefix(line, []byte("a ")) {
			c.in.r -= len(line) // it is reply's
			return n, nil
		}
		if size, ok := announced(line); ok {
			if err := c.skip(size); err != nil {
				return n, err
			}
			n += size
		}
	}
}

// announced is the size of the literal that follows a line, if one does.
func announced(line []byte) (size int, ok bool) {
	line = bytes.TrimRight(line, "\r\n")
	i := bytes.LastIndexByte(line, '{')
	if i < 0 || line[len(line)-1] != '}' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(line[i+1:len(line)-1]), 10, 31)
	return int(n), err == nil
}

// skip reads n bytes and forgets them.
func (c *conn) skip(n int) error {
	in := c.in
	for {
		take := min(n, in.w-in.r)
		in.r += take
		if n -= take; n == 0 {
			return nil
		}
		in.r, in.w = 0, 0
		m, err := c.read(in.buf[:])
		in.w = m
		if m == 0 && err != nil {
			return fail(Lost, "within a message", err)
		}
	}
}
