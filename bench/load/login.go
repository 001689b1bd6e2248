package load

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// imapLogin is of RFC 9051 §6.2.3, with quoted strings.
func imapLogin(user, password string) []exchange {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	return []exchange{{fmt.Sprintf("a LOGIN \"%s\" \"%s\"\r\n", quoted.Replace(user), quoted.Replace(password)), "a OK"}}
}

// popLogin is of RFC 1939 §7.
func popLogin(user, password string) []exchange {
	return []exchange{{"USER " + user + "\r\n", "+OK"}, {"PASS " + password + "\r\n", "+OK"}}
}

// sieveLogin is of RFC 5804 §2.1, with PLAIN (RFC 4616).
func sieveLogin(user, password string) []exchange {
	response := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	return []exchange{{`AUTHENTICATE "PLAIN" "` + response + "\"\r\n", "OK"}}
}

// ftpLogin is of RFC 959 §5.4.
func ftpLogin(user, password string) []exchange {
	return []exchange{{"USER " + user + "\r\n", "331"}, {"PASS " + password + "\r\n", "230"}}
}

// checkLogin sees that a user can log in, where there is one.
func (o *Options) checkLogin() error {
	switch p := o.Target.protocol; {
	case o.User == "" && o.Password == "":
		return nil
	case o.User == "" || o.Password == "":
		return errors.New("a user and a password go together")
	case p.login == nil:
		return fmt.Errorf("a login is not possible with %s", p.scheme)
	case o.Mode != Hold && o.Mode != Chat && o.Mode != Transfer:
		return fmt.Errorf("mode %s does not log in", o.Mode)
	case !printable(o.User + o.Password):
		return errors.New("user and password: use printable ASCII only")
	}
	return nil
}

// printable reports whether s can be part of a command's line.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// enter is open and then a login, if there is somebody to log in, up to the state
// that the mode works in.
func (c *conn) enter() error {
	o := &c.run.o
	if o.Mode == Transfer && o.Target.protocol.transfer.files {
		c.files = newFiles(c.run.tls)
	}
	if err := c.open(); err != nil {
		return err
	}
	if o.User == "" {
		return nil
	}
	for _, x := range o.Target.protocol.login(o.User, o.Password) {
		if _, err := c.confide(x); err != nil {
			return fmt.Errorf("login: %w", err)
		}
	}
	if o.Mode != Transfer {
		return nil
	}
	for _, x := range o.Target.protocol.transfer.begin(o) {
		if err := c.do(x); err != nil {
			return err
		}
	}
	return nil
}
