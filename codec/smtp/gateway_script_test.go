package smtp

import (
	"testing"

	"starttlsd/codec"
	"starttlsd/codec/codectest"
)

var gatewaySuite = codectest.Suite[GatewayConfig]{
	Config: func() *GatewayConfig { return &GatewayConfig{Hostname: "front.test", TLS: true} },
	Session: func(c *GatewayConfig, implicit bool) codec.Session {
		c.TLS = c.TLS && !implicit
		return NewGateway(c, &codectest.Peer)
	},
	Settings: map[string]func(*GatewayConfig){
		"no-tls":      func(c *GatewayConfig) { c.TLS = false },
		"require-tls": func(c *GatewayConfig) { c.RequireTLS = true },
		"lmtp":        func(c *GatewayConfig) { c.LMTP = true },
		"xclient":     func(c *GatewayConfig) { c.XCLIENT = true },
		"ten-junk":    func(c *GatewayConfig) { c.Limits.JunkCommands = 10 },
	},
}

func TestGatewayScripts(t *testing.T) { gatewaySuite.Run(t, "testdata/gateway/*.txt") }
