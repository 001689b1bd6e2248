package config

import (
	"cmp"
	"fmt"
	"time"
)

// Limits bound the process as a whole and, where a listener says nothing else,
// every session.
type Limits struct {
	ProcessLimits `yaml:",inline"`
	SessionLimits `yaml:",inline"`
}

// ProcessLimits hold for all listeners together and stand in the global block only.
type ProcessLimits struct {
	PerClientLoopback   bool `yaml:"per_client_loopback"`  // the limits per client are for loopback clients too; default false
	HandshakesComputing int  `yaml:"handshakes_computing"` // at once; default 0: one less than there are cores, at least 1
	HandshakesQueued    int  `yaml:"handshakes_queued"`    // waiting for their turn to compute; default 1024
	HandshakesWaiting   int  `yaml:"handshakes_waiting"`   // told to go ahead, ClientHello not complete; default 4096
}

// SessionLimits may be a listener's own, which come before the global ones. The
// first four count connections: those of a listener where one of them differs from
// the global block are counted by themselves, all others together. A client is an
// IPv4 address or an IPv6 /64.
type SessionLimits struct {
	MaxConnections          int `yaml:"max_connections"`            // default 0: what descriptors and memory allow
	ConnectionsPerClient    int `yaml:"connections_per_client"`     // open at once; default 50
	ConnectionRatePerClient int `yaml:"connection_rate_per_client"` // new ones a minute; default 300
	HandshakesPerClient     int `yaml:"handshakes_per_client"`      // new TLS handshakes a minute; default 60

	Handshake      time.Duration `yaml:"handshake"`       // from the go-ahead to the end of the TLS handshake; default 10s
	HandshakeInput Size          `yaml:"handshake_input"` // bytes a client may send in it; default 0: 16KiB, 288KiB with client certificates
	Command        time.Duration `yaml:"command"`         // for one complete command line; default 0: by protocol
	Line           Size          `yaml:"line"`            // of one command with its CRLF; default 0: by protocol
	Login          time.Duration `yaml:"login"`           // from the start until login, in imap, pop3, sieve and ftp; default 3m
	Idle           time.Duration `yaml:"idle"`            // without a byte after login; default 0: by protocol
	Reply          time.Duration `yaml:"reply"`           // for a reply of the backend; default 10m (RFC 5321 §4.5.3.2.6)
	BadCommands    int           `yaml:"bad_commands"`    // in a session; default 5
	JunkCommands   int           `yaml:"junk_commands"`   // NOOP, RSET, EHLO and their like without a message; default 50
	Messages       int           `yaml:"messages"`        // in a session; default 100
	Recipients     int           `yaml:"recipients"`      // of a message; default 1000
	MessageSize    Size          `yaml:"message_size"`    // default 25MiB
	DataConnect    time.Duration `yaml:"data_connect"`    // for a client's data connection to come, in ftp; default 30s
	DataStall      time.Duration `yaml:"data_stall"`      // without a byte of a message, or of an upload with ftp; default 3m (RFC 5321 §4.5.3.2.5)
	DataRate       Size          `yaml:"data_rate"`       // least bytes of either a second; default 500
	Output         Size          `yaml:"output"`          // replies a client may leave unread; default 64KiB
	Linger         time.Duration `yaml:"linger"`          // waiting for the client's FIN after ours; default 5s
	Stress         time.Duration `yaml:"stress"`          // the most that command, handshake and linger are when the server is nearly full; default 10s
}

// OwnAdmission reports whether l's connections are counted by themselves.
func (l *SessionLimits) OwnAdmission(global *SessionLimits) bool {
	counts := func(l *SessionLimits) [4]int {
		return [...]int{l.MaxConnections, l.ConnectionsPerClient, l.ConnectionRatePerClient, l.HandshakesPerClient}
	}
	return counts(l) != counts(global)
}

func defaultLimits() Limits {
	return Limits{
		ProcessLimits: ProcessLimits{
			HandshakesQueued:  1024,
			HandshakesWaiting: 4096,
		},
		SessionLimits: SessionLimits{
			ConnectionsPerClient:    50,
			ConnectionRatePerClient: 300,
			HandshakesPerClient:     60,

			Handshake:    10 * time.Second,
			Login:        3 * time.Minute,
			Reply:        10 * time.Minute,
			BadCommands:  5,
			JunkCommands: 50,
			Messages:     100,
			Recipients:   1000,
			MessageSize:  25 * miB,
			DataConnect:  30 * time.Second,
			DataStall:    3 * time.Minute,
			DataRate:     500,
			Output:       64 * kiB,
			Linger:       5 * time.Second,
			Stress:       10 * time.Second,
		},
	}
}

// byProtocol is what a 0 stands for.
var byProtocol = map[string]struct {
	command time.Duration
	line    Size
	idle    time.Duration // 0: as command
}{
	"smtp":  {command: 5 * time.Minute, line: 2 * kiB}, // RFC 5321 §4.5.3.2.7
	"lmtp":  {command: 5 * time.Minute, line: 2 * kiB},
	"imap":  {command: time.Minute, line: 8 * kiB, idle: 30 * time.Minute}, // RFC 9051 §5.4; RFC 7162 §4
	"pop3":  {command: time.Minute, line: 2 * kiB, idle: 10 * time.Minute}, // RFC 1939 §3
	"sieve": {command: time.Minute, line: 8 * kiB, idle: 10 * time.Minute},
	"nntp":  {command: 5 * time.Minute, line: 2 * kiB}, // RFC 3977 §3.1: at least 3 minutes
	"ftp":   {command: time.Minute, line: 2 * kiB, idle: 15 * time.Minute},
}

// settle puts what protocol needs in the place of each 0.
func (l *SessionLimits) settle(protocol string) {
	own := byProtocol[protocol]
	l.Command = cmp.Or(l.Command, own.command)
	l.Line = cmp.Or(l.Line, own.line)
	l.Idle = cmp.Or(l.Idle, own.idle, l.Command)
}

const shortest = 100 * time.Millisecond // of a deadline; less would cut off healthy clients

func (l *ProcessLimits) check() error {
	return cmp.Or(
		within("handshakes_computing", l.HandshakesComputing, 0, 1024),
		within("handshakes_queued", l.HandshakesQueued, 1, 1<<20),
		within("handshakes_waiting", l.HandshakesWaiting, 8, 1<<20), // a client may hold an eighth
	)
}

func (l *SessionLimits) check() error {
	return cmp.Or(
		within("max_connections", l.MaxConnections, 0, 1<<24),
		within("connections_per_client", l.ConnectionsPerClient, 1, 1<<24),
		within("connection_rate_per_client", l.ConnectionRatePerClient, 1, 1<<24),
		within("handshakes_per_client", l.HandshakesPerClient, 1, 1<<24),
		within("handshake", l.Handshake, shortest, 10*time.Minute),
		zeroOrWithin("handshake_input", l.HandshakeInput, 4*kiB, 1*miB),
		zeroOrWithin("command", l.Command, shortest, time.Hour),
		zeroOrWithin("line", l.Line, 512, 16*kiB), // RFC 5321 §4.5.3.1.4; the most that codec.Session allows
		within("login", l.Login, shortest, time.Hour),
		zeroOrWithin("idle", l.Idle, shortest, 24*time.Hour),
		within("reply", l.Reply, shortest, 24*time.Hour),
		within("bad_commands", l.BadCommands, 1, 1000),
		within("junk_commands", l.JunkCommands, 10, 1<<20),
		within("messages", l.Messages, 1, 1<<20),
		within("recipients", l.Recipients, 100, 1<<20),        // RFC 5321 §4.5.3.1.8
		within("message_size", l.MessageSize, 64*kiB, 64*giB), // RFC 5321 §4.5.3.1.7
		within("data_connect", l.DataConnect, shortest, time.Hour),
		within("data_stall", l.DataStall, shortest, time.Hour),
		within("data_rate", l.DataRate, 1, giB),
		within("output", l.Output, 4*kiB, 1*miB),
		within("linger", l.Linger, shortest, time.Minute),
		within("stress", l.Stress, shortest, time.Hour),
	)
}

// within is nil if v lies in [lo, hi], else an error that names key.
func within[T cmp.Ordered](key string, v, lo, hi T) error {
	if lo <= v && v <= hi {
		return nil
	}
	return &keyError{key, fmt.Sprintf("%s is out of range; use %s to %s", canonical(v), canonical(lo), canonical(hi))}
}

// zeroOrWithin is for a limit that may be left to us.
func zeroOrWithin[T int | Size | time.Duration](key string, v, lo, hi T) error {
	if v == 0 {
		return nil
	}
	return within(key, v, lo, hi)
}
