package ftp

import (
	"testing"

	"starttlsd/codec"
	"starttlsd/codec/codectest"
)

var suite = codectest.Suite[Config]{
	Config: func() *Config { return &Config{Hostname: "front.test", TLS: true} },
	Session: func(c *Config, implicit bool) codec.Session {
		c.TLS = c.TLS && !implicit
		return New(c, &codectest.Peer)
	},
	Settings: map[string]func(*Config){
		"no-tls":   func(c *Config) { c.TLS = false },
		"control":  func(c *Config) { c.RequireTLS = ForControl },
		"optional": func(c *Config) { c.RequireTLS = Optional },
		"active":   func(c *Config) { c.Active = true },
		"address":  func(c *Config) { c.PASV = []byte{203, 0, 113, 7} },
		"ten-junk": func(c *Config) { c.Limits.JunkCommands = 10 },
	},
	Verbs: map[string]func(*codectest.Script, string){
		"FULL": func(s *codectest.Script, _ string) { s.Data.Full = true },
		"IPV6": func(s *codectest.Script, _ string) { s.Data.IPv6 = true },
	},
}

func TestScripts(t *testing.T) { suite.Run(t, "testdata/script/*.txt") }
