package imap

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
		"no-tls":      func(c *Config) { c.TLS = false },
		"require-tls": func(c *Config) { c.RequireTLS = true },
		"id":          func(c *Config) { c.ID = true },
		"ten-junk":    func(c *Config) { c.Limits.JunkCommands = 10 },
	},
}

func TestScripts(t *testing.T) { suite.Run(t, "testdata/script/*.txt") }
