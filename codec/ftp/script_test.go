package ftp

import (
	"net/netip"
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

func TestScriptsOverIPv6(t *testing.T) {
	s := suite
	s.Session = func(c *Config, _ bool) codec.Session {
		peer := codec.NewPeer(1, netip.MustParseAddrPort("[2001:db8::1]:40000"), netip.MustParseAddrPort("[2001:db8::2]:21"))
		c.TLS = false // it is there from the start
		return New(c, &peer)
	}
	s.Run(t, "testdata/ipv6/*.txt")
}
