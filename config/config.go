// Package config reads starttlsd's YAML configuration and builds the TLS
// configuration from it.
//
// Reading is strict: an unknown key, a value of the wrong kind or out of range
// is one error that names file, line and column and says what to do. What Load
// returns is the effective configuration: every default is filled in and every
// listener carries the limits it inherits, so that YAML prints what is in force.
//
// Relative paths are relative to the working directory, not to the file.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/token"
)

// Config is the whole configuration.
type Config struct {
	Hostname  string        `yaml:"hostname"` // said in greetings; default: the system's name
	TLS       TLS           `yaml:"tls"`
	Listeners []Listener    `yaml:"listeners"` // at least one
	Limits    Limits        `yaml:"limits"`
	Drain     time.Duration `yaml:"drain"` // how long sessions may go on after SIGTERM or a hand-over; 0: not at all; default 30s
	Admin     Admin         `yaml:"admin"`
	Log       Log           `yaml:"log"`

	src source // where each value stands in the file, for errors
}

// TLS is what all listeners share. See Config.BuildTLS.
type TLS struct {
	Certificates   []KeyPair      `yaml:"certificates,omitempty"` // chosen by SNI; none: a self-signed one is made
	Profile        Profile        `yaml:"profile"`                // default intermediate
	StrictSNI      bool           `yaml:"strict_sni"`             // an unknown server name ends the handshake; default false: the first certificate
	ClientAuth     ClientAuth     `yaml:"client_auth"`            // default none
	ClientCA       string         `yaml:"client_ca,omitempty"`    // PEM file; needed for verify and require
	SessionTickets SessionTickets `yaml:"session_tickets"`
}

// SessionTickets say whose keys session tickets are made with.
type SessionTickets struct {
	Keys   string        `yaml:"keys"`   // auto, file:PATH, redis://HOST:PORT/DB or rediss://; default auto: this process's own
	Rotate time.Duration `yaml:"rotate"` // how long a key makes tickets; default 12h
	Off    bool          `yaml:"off"`    // no tickets: every handshake is a full one; default false
}

// Admin is the operator's own address.
type Admin struct {
	Address string `yaml:"address,omitempty"` // IP:port or fd:NAME; default none
}

// KeyPair names the PEM files of a certificate chain, leaf first, and of its key.
type KeyPair struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Profile says which TLS versions and cipher suites are spoken.
type Profile string

const (
	Modern       Profile = "modern"       // TLS 1.3
	Intermediate Profile = "intermediate" // TLS 1.2 with forward secrecy and AEAD, and 1.3
	Legacy       Profile = "legacy"       // TLS 1.0 with forward secrecy, and later
)

// ClientAuth says what is asked of a client about certificates.
type ClientAuth string

const (
	NoClientCert      ClientAuth = "none"
	RequestClientCert ClientAuth = "request" // asked for, not verified
	VerifyClientCert  ClientAuth = "verify"  // verified if there is one
	RequireClientCert ClientAuth = "require" // there must be one, and it is verified
)

// Listener is one address that is served.
type Listener struct {
	Address        string         `yaml:"address"`           // IP:port or :port; port 0: any free one; fd:NAME: a socket that systemd passes
	Protocol       string         `yaml:"protocol"`          // smtp, lmtp, imap, pop3, sieve, nntp, ftp
	TLS            TLSMode        `yaml:"tls"`               // default starttls
	RequireTLS     RequireTLS     `yaml:"require_tls"`       // refuse what matters in clear; default false, as a public MX must; ftp: data
	ProxyProtocol  bool           `yaml:"proxy_protocol"`    // connections begin with a PROXY header; default false
	Trusted        []string       `yaml:"trusted,omitempty"` // the networks of the proxies that send it; others are not let in
	Backend        string         `yaml:"backend"`           // tcp://, tls:// or starttls://host:port; for smtp also maildir:PATH
	BackendOptions BackendOptions `yaml:"backend_options,omitempty"`
	Passive        Passive        `yaml:"passive,omitempty"`      // ftp: where data connections come in (PASV, EPSV)
	Active         bool           `yaml:"active,omitempty"`       // ftp: PORT and EPRT too, to the client's own address; default false
	DataSession    DataSession    `yaml:"data_session,omitempty"` // ftp: whose data connection it is; default resume
	Limits         SessionLimits  `yaml:"limits"`                 // what is absent is as in Config.Limits
}

// TLSMode says how TLS begins.
type TLSMode string

const (
	StartTLS TLSMode = "starttls" // offered in the plaintext dialogue
	Implicit TLSMode = "implicit" // from the first byte
)

// Log says what is logged, and how. Level is understood by slog.Level.UnmarshalText.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error; default info
	Format string `yaml:"format"` // text, json; default text
	Rate   int    `yaml:"rate"`   // lines of one kind a second, once Burst is used up; default 50
	Burst  int    `yaml:"burst"`  // of one kind that may come at once; default 1000; 0: no limit at all
}

// Default is the configuration without a file: SMTP on two loopback ports,
// STARTTLS on 2525 and implicit TLS on 2465, into ./maildir, and the operator's address.
func Default() *Config {
	c := defaults()
	for _, l := range []Listener{
		{Address: "127.0.0.1:2525", TLS: StartTLS},
		{Address: "127.0.0.1:2465", TLS: Implicit},
	} {
		l.Protocol, l.Backend, l.Limits = "smtp", maildir+"./maildir", c.Limits.SessionLimits
		l.RequireTLS = TLSOptional
		l.Limits.settle(l.Protocol)
		c.Listeners = append(c.Listeners, l)
	}
	c.Admin.Address = "127.0.0.1:9625"
	return c
}

// defaults is what a file is laid over: everything but listeners, which a file
// has to name.
func defaults() *Config {
	return &Config{
		Hostname: systemName(),
		TLS: TLS{
			Profile: Intermediate, ClientAuth: NoClientCert,
			SessionTickets: SessionTickets{Keys: AutoKeys, Rotate: 12 * time.Hour},
		},
		Limits: defaultLimits(),
		Drain:  30 * time.Second,
		Log:    Log{Level: "info", Format: "text", Rate: 50, Burst: 1000},
	}
}

// systemName is the system's name where that can be said in a greeting.
func systemName() string {
	name, err := os.Hostname()
	if err != nil || checkHostname(name) != nil {
		return "localhost"
	}
	return name
}

// Load reads and checks the file at path.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; name a readable file with -config", path, cause(err))
	}
	return parse(path, data)
}

// cause is err without the operation and the path, which our messages name themselves.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

func parse(file string, data []byte) (*Config, error) {
	c := defaults()
	root, err := c.src.parse(file, data)
	if err != nil {
		return nil, err
	}
	if root != nil {
		if err := c.src.decode(root, "", reflect.ValueOf(c).Elem()); err != nil {
			return nil, err
		}
	}
	for i := range c.Listeners {
		if err := c.inherit(i); err != nil {
			return nil, err
		}
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	return c, nil
}

// inherit gives listener i what it does not say itself. It runs when all is
// decoded, because the global limits may stand below the listeners.
func (c *Config) inherit(i int) error {
	l, path := &c.Listeners[i], fmt.Sprintf("listeners[%d]", i)
	if c.src.nodes[path+".tls"] == nil {
		l.TLS = StartTLS
	}
	c.inheritFTP(l, path)
	if _, ok := l.Server(); ok {
		l.BackendOptions = defaultBackendOptions()
		if err := c.again(path+".backend_options", &l.BackendOptions); err != nil {
			return err
		}
	}
	l.Limits = c.Limits.SessionLimits
	if err := c.again(path+".limits", &l.Limits); err != nil {
		return err
	}
	l.Limits.settle(l.Protocol)
	return nil
}

// again decodes the block at path, if there is one, over v, which now holds what
// the block does not say.
func (c *Config) again(path string, v any) error {
	if block := c.src.nodes[path]; block != nil {
		return c.src.decode(block, path, reflect.ValueOf(v).Elem())
	}
	return nil
}

// YAML is the effective configuration as a file that Load takes back.
func (c *Config) YAML() ([]byte, error) {
	return yaml.MarshalWithOptions(c, yaml.IndentSequence(true),
		yaml.CustomMarshaler(func(d time.Duration) ([]byte, error) { return []byte(formatDuration(d)), nil }),
		yaml.CustomMarshaler(quoteText))
}

// quoteText quotes what YAML would read as something else. The encoder's own
// rule, IsNeedQuoted, misses "? a", "---" and "...".
func quoteText(s string) ([]byte, error) {
	if token.IsNeedQuoted(s) || strings.ContainsAny(s[:1], "?-.") {
		return []byte(strconv.Quote(s)), nil
	}
	return []byte(s), nil
}
