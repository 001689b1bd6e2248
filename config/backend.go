package config

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"starttlsd/backend"
)

// BackendOptions say how the server behind a listener is reached.
type BackendOptions struct {
	ProxyProtocol ProxyProtocol `yaml:"proxy_protocol"`        // tells who the client is before anything else; default none
	XCLIENT       bool          `yaml:"xclient"`               // the same in SMTP and LMTP; default false
	IMAPID        bool          `yaml:"imap_id"`               // the same in IMAP, with ID; default false
	CA            string        `yaml:"ca,omitempty"`          // PEM file of the authorities to trust; default: the system's
	ServerName    string        `yaml:"server_name,omitempty"` // what its certificate has to be for; default: the host of backend
	Cert          string        `yaml:"cert,omitempty"`        // PEM files of the certificate that we show, and
	Key           string        `yaml:"key,omitempty"`         // of its key; default: none
	Timeout       time.Duration `yaml:"timeout"`               // for a connection to be usable; default 10s
	Concurrency   int           `yaml:"concurrency"`           // connections that are being made at a time; default 64
}

// ProxyProtocol is a version of the PROXY header.
type ProxyProtocol string

const (
	NoProxyHeader ProxyProtocol = "none"
	ProxyV1       ProxyProtocol = "v1"
	ProxyV2       ProxyProtocol = "v2"
)

func defaultBackendOptions() BackendOptions {
	return BackendOptions{ProxyProtocol: NoProxyHeader, Timeout: 10 * time.Second, Concurrency: 64}
}

const maildir = "maildir:"

// Maildir is the PATH of a backend maildir:PATH, else "".
func (l *Listener) Maildir() string {
	path, ok := strings.CutPrefix(l.Backend, maildir)
	if !ok {
		return ""
	}
	return path
}

// Server is where the backend is, unless it is a Maildir.
func (l *Listener) Server() (_ backend.Address, ok bool) {
	a, err := backend.ParseAddress(l.Backend)
	return a, err == nil
}

func (l *Listener) checkBackend() error {
	if strings.HasPrefix(l.Backend, maildir) {
		switch {
		case l.Maildir() == "":
			return &keyError{"backend", "the path is missing; write maildir:PATH"}
		case l.Protocol != "smtp":
			return &keyError{"backend", "a Maildir is for smtp alone; write tcp://host:port, tls://host:port or starttls://host:port"}
		case l.BackendOptions != (BackendOptions{}):
			return &keyError{"backend_options", "a Maildir has none; remove them"}
		}
		return nil
	}
	a, err := backend.ParseAddress(l.Backend)
	switch {
	case l.Backend == "" || err != nil && l.Protocol == "smtp" && !strings.Contains(l.Backend, "://"):
		return &keyError{"backend", unknown(l.Backend) + "; write tcp://host:port, tls://host:port or starttls://host:port, or maildir:PATH for smtp"}
	case err != nil:
		return under("backend", err)
	}
	return under("backend_options", l.BackendOptions.check(l.Protocol, a.Scheme))
}

func (o *BackendOptions) check(protocol string, scheme backend.Scheme) error {
	switch {
	case o.XCLIENT && protocol != "smtp" && protocol != "lmtp":
		return &keyError{"xclient", fmt.Sprintf("is for smtp and lmtp, not for %s; remove it", protocol)}
	case o.IMAPID && protocol != "imap":
		return &keyError{"imap_id", fmt.Sprintf("is for imap, not for %s; remove it", protocol)}
	case o.Cert != "" && o.Key == "":
		return &keyError{"cert", "needs key, the PEM file of its key"}
	case o.Key != "" && o.Cert == "":
		return &keyError{"key", "needs cert, the PEM file of its certificate"}
	}
	if scheme == backend.Plain {
		for _, k := range []struct{ key, value string }{{"ca", o.CA}, {"server_name", o.ServerName}, {"cert", o.Cert}} {
			if k.value != "" {
				return &keyError{k.key, "is for tls:// and starttls://, and the backend is tcp://; remove one of them"}
			}
		}
	}
	return cmp.Or(
		oneOf("proxy_protocol", o.ProxyProtocol, NoProxyHeader, ProxyV1, ProxyV2),
		under("server_name", checkServerName(o.ServerName)),
		within("timeout", o.Timeout, shortest, 10*time.Minute),
		within("concurrency", o.Concurrency, 1, 1<<16),
	)
}

// checkServerName wants what a certificate can be for.
func checkServerName(name string) error {
	if _, err := netip.ParseAddr(name); name == "" || err == nil {
		return nil
	}
	return checkHostname(name)
}

// checkTrusted wants networks for the PROXY header, and none without it.
func (l *Listener) checkTrusted() error {
	switch {
	case l.ProxyProtocol && len(l.Trusted) == 0:
		return &keyError{"proxy_protocol", "needs trusted, the addresses of the proxies; anybody could say to be anyone otherwise"}
	case !l.ProxyProtocol && len(l.Trusted) > 0:
		return &keyError{"trusted", "is of no use without proxy_protocol: true; add that, or remove it"}
	}
	for i, text := range l.Trusted {
		if _, err := parseNetwork(text); err != nil {
			return under(fmt.Sprintf("trusted[%d]", i), err)
		}
	}
	return nil
}

// TrustedNetworks are those whose PROXY headers are believed; nil when none is expected.
func (l *Listener) TrustedNetworks() []netip.Prefix {
	var networks []netip.Prefix
	for _, text := range l.Trusted {
		if p, err := parseNetwork(text); err == nil {
			networks = append(networks, p)
		}
	}
	return networks
}

// parseNetwork takes 10.0.0.0/8, and 10.0.0.1 for 10.0.0.1/32.
func parseNetwork(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if a, addrErr := netip.ParseAddr(s); addrErr == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is not a network; write for instance 10.0.0.0/8, or 10.0.0.1 for one address", s)
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is IPv4 within IPv6; write the IPv4 network", s)
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%q has bits behind its length; write %s, or the address alone", s, p.Masked())
	}
	return p, nil
}

// BuildBackendTLS reads the files of listener i's backend_options. It returns nil
// for a backend without TLS. log and now are as in BuildTLS.
func (c *Config) BuildBackendTLS(i int, log *slog.Logger, now func() time.Time) (*tls.Config, error) {
	l := &c.Listeners[i]
	if a, ok := l.Server(); !ok || a.Scheme == backend.Plain {
		return nil, nil
	}
	cfg, err := l.BackendOptions.buildTLS(log, now)
	return cfg, c.locate(under(fmt.Sprintf("listeners[%d].backend_options", i), err))
}

func (o *BackendOptions) buildTLS(log *slog.Logger, now func() time.Time) (*tls.Config, error) {
	cfg := &tls.Config{
		Time:                        now,
		MinVersion:                  tls.VersionTLS12,
		ServerName:                  o.ServerName,
		DynamicRecordSizingDisabled: true, // as in newConfig
	}
	if o.CA != "" {
		authorities, err := readChain(o.CA)
		if err != nil {
			return nil, under("ca", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		for _, ca := range authorities {
			cfg.RootCAs.AddCert(ca)
		}
	}
	if o.Cert != "" {
		pair := KeyPair{o.Cert, o.Key}
		cert, err := pair.read()
		if err != nil {
			return nil, err
		}
		pair.warn(log, cert.Leaf, now(), "backends")
		cfg.Certificates = []tls.Certificate{*cert}
	}
	return cfg, nil
}
