package config

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// watchEvery is how often the files are looked at. Looking at them sees what a
	// watch of their directories does not: a link exchanged further up, a bind mount,
	// a network file system.
	watchEvery = 400 * time.Millisecond
	// settling is how long a changed file may be unusable before that is told: key
	// and certificate change a moment apart.
	settling = 2 * time.Second
	// expiryNotice is how long before its end a certificate is warned of.
	expiryNotice = 14 * 24 * time.Hour
	// expiryEvery is how often.
	expiryEvery = 12 * time.Hour
)

// Certificates is the server's side of TLS: its certificates, and the tls.Config of
// each protocol that serves them. Its methods may be called from any goroutine.
type Certificates struct {
	tls     TLS
	log     *slog.Logger
	now     func() time.Time
	tickets Tickets
	set     atomic.Pointer[certSet] // replaced as a whole, never changed

	mu        sync.Mutex
	pairs     []*pairFiles         // as in tls.Certificates; none: self-signed
	clientCAs *caFile              // nil without
	configs   map[string]*protocol // by name
	warned    time.Time            // of expiry
}

// Tickets has tls.Configs share the keys of session tickets: those with the same
// scope open each other's. See package tickets.
type Tickets interface {
	// Serve sets cfg's keys now and whenever they change, for as long as cfg is in use.
	Serve(scope string, cfg *tls.Config)
}

// protocol is what one protocol's listeners have.
type protocol struct {
	name    string
	config  *tls.Config
	current atomic.Pointer[tls.Config] // the one with the client CAs in force; nil where there are none
}

// pairFiles are a certificate's files, and what was read from them.
type pairFiles struct {
	pair  KeyPair
	files watched
	cert  *tls.Certificate
}

// caFile is the file of the authorities for client certificates.
type caFile struct {
	files watched
	path  string
	pool  *x509.CertPool
	hash  [sha256.Size]byte
}

// BuildTLS reads the files that c.TLS names. A file that cannot be used is an
// error; what only its owner can judge, such as an expired certificate, is a
// warning in log. Without a certificate it makes a self-signed one. now is
// time.Now but in tests.
func (c *Config) BuildTLS(log *slog.Logger, now func() time.Time) (*Certificates, error) {
	return c.RebuildTLS(nil, nil, log, now)
}

// RebuildTLS is BuildTLS after the configuration has changed: a file that was in
// use and cannot be used now keeps what was read from it, and the self-signed
// certificate stays. Session tickets are made with the keys of tickets; nil: each
// tls.Config has its own.
func (c *Config) RebuildTLS(old *Certificates, tickets Tickets, log *slog.Logger, now func() time.Time) (*Certificates, error) {
	cs := &Certificates{tls: c.TLS, log: log, now: now, tickets: tickets, configs: make(map[string]*protocol)}
	if c.TLS.Profile == Legacy {
		log.Warn("tls.profile is legacy: clients may use the broken TLS 1.0 and 1.1")
	}
	for i, pair := range c.TLS.Certificates {
		p := &pairFiles{pair: pair, files: watched{names: []string{pair.Cert, pair.Key}}}
		if was := old.find(pair); was != nil {
			*p = *was
		} else if err := p.load(log, now()); err != nil {
			return nil, c.locate(under(fmt.Sprintf("tls.certificates[%d]", i), err))
		}
		cs.pairs = append(cs.pairs, p)
	}
	if err := cs.settle(c.Hostname, old); err != nil {
		return nil, err
	}
	if c.TLS.ClientCA != "" {
		if c.TLS.ClientAuth == NoClientCert {
			log.Warn("tls.client_ca is not used: tls.client_auth is none")
		}
		cs.clientCAs = &caFile{path: c.TLS.ClientCA, files: watched{names: []string{c.TLS.ClientCA}}}
		if old != nil && old.clientCAs != nil && old.clientCAs.path == c.TLS.ClientCA {
			old.mu.Lock()
			*cs.clientCAs = *old.clientCAs
			old.mu.Unlock()
		} else if err := cs.clientCAs.load(); err != nil {
			return nil, c.locate(under("tls.client_ca", err))
		}
	}
	cs.Poll()
	return cs, nil
}

// find is what cs has of pair; nil if nothing. cs may be nil.
func (cs *Certificates) find(pair KeyPair) *pairFiles {
	if cs == nil {
		return nil
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, p := range cs.pairs {
		if p.pair == pair {
			return new(*p)
		}
	}
	return nil
}

// settle makes the set of what was read, or of a self-signed certificate.
func (cs *Certificates) settle(hostname string, old *Certificates) error {
	if len(cs.pairs) > 0 {
		cs.publish()
		return nil
	}
	if old != nil && old.set.Load().selfSigned && slices.Contains(old.set.Load().all[0].Leaf.DNSNames, hostname) {
		cs.set.Store(old.set.Load())
		return nil
	}
	cert, err := selfSigned(hostname, cs.now())
	if err != nil {
		return fmt.Errorf("making a self-signed certificate: %w", err)
	}
	set := newCertSet([]*tls.Certificate{cert})
	set.selfSigned = true
	cs.set.Store(set)
	return nil
}

// publish has handshakes from here on use what the pairs hold.
func (cs *Certificates) publish() {
	var all []*tls.Certificate
	for _, p := range cs.pairs {
		all = append(all, p.cert)
	}
	cs.set.Store(newCertSet(all))
}

// Watch looks at the files until ctx is done.
func (cs *Certificates) Watch(ctx context.Context) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			cs.Poll()
		}
	}
}

// Poll looks at the files once and takes what has changed. What cannot be used is
// logged as an error, and the old stays in force.
func (cs *Certificates) Poll() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	changed := false
	for _, p := range cs.pairs {
		if !p.files.changed() {
			continue
		}
		was := p.cert
		if !p.files.usable(p.load(cs.log, cs.now()), cs.log) || p.cert == was {
			continue
		}
		changed = true
		cs.log.Info("certificate reloaded", "cert", p.pair.Cert, "names", p.cert.Leaf.DNSNames,
			"not_after", p.cert.Leaf.NotAfter, "sha256", fingerprint256(p.cert.Leaf))
	}
	if changed {
		cs.publish()
	}
	if ca := cs.clientCAs; ca != nil && ca.files.changed() {
		was := ca.hash
		if ca.files.usable(ca.load(), cs.log) && ca.hash != was {
			cs.log.Info("client_ca reloaded", "file", ca.path)
			for _, p := range cs.configs {
				cs.renew(p)
			}
		}
	}
	if now := cs.now(); now.Sub(cs.warned) >= expiryEvery {
		first := cs.warned.IsZero()
		cs.warned = now
		for _, p := range cs.pairs {
			p.warnExpiry(cs.log, now, first)
		}
	}
}

// warnExpiry warns of the end of a certificate. What has expired was told when it
// was loaded.
func (p *pairFiles) warnExpiry(log *slog.Logger, now time.Time, loaded bool) {
	switch left := p.cert.Leaf.NotAfter.Sub(now); {
	case left >= expiryNotice, left <= 0 && loaded:
	case left <= 0:
		p.pair.warn(log, p.cert.Leaf, now, "clients")
	default:
		log.Warn("certificate expires soon: renew it", "cert", p.pair.Cert,
			"not_after", p.cert.Leaf.NotAfter, "days_left", int(left/(24*time.Hour)))
	}
}

// load reads the files. What is the same stays the same.
func (p *pairFiles) load(log *slog.Logger, now time.Time) error {
	p.files.look()
	cert, err := p.pair.read()
	if err != nil || p.cert != nil && slices.EqualFunc(cert.Certificate, p.cert.Certificate, bytes.Equal) {
		return err
	}
	p.pair.warn(log, cert.Leaf, now, "clients")
	if len(cert.Leaf.DNSNames) == 0 {
		log.Warn("certificate names no host (subjectAltName), it is never chosen by SNI", "cert", p.pair.Cert)
	}
	p.cert = cert
	return nil
}

func (f *caFile) load() error {
	f.files.look()
	authorities, err := readChain(f.path)
	if err != nil {
		return err
	}
	pool, all := x509.NewCertPool(), new(bytes.Buffer)
	for _, ca := range authorities {
		pool.AddCert(ca)
		all.Write(ca.Raw)
	}
	f.pool, f.hash = pool, sha256.Sum256(all.Bytes())
	return nil
}

// CertificateStatus is a certificate in force.
type CertificateStatus struct {
	File       string // empty: it was made at the start
	Names      []string
	NotAfter   time.Time
	SelfSigned bool
	Stale      string // why a newer file could not be used
}

// Status returns the certificates in force, in the order of the configuration.
func (cs *Certificates) Status() []CertificateStatus {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var all []CertificateStatus
	for i, cert := range cs.set.Load().all {
		s := CertificateStatus{Names: cert.Leaf.DNSNames, NotAfter: cert.Leaf.NotAfter, SelfSigned: true}
		if i < len(cs.pairs) {
			s.File, s.SelfSigned, s.Stale = cs.pairs[i].pair.Cert, false, cs.pairs[i].files.told
		}
		all = append(all, s)
	}
	return all
}

// SelfSigned returns the SHA-256 fingerprint of the certificate that was made
// because none is configured, as openssl x509 -fingerprint prints it.
func (cs *Certificates) SelfSigned() (fingerprint string, ok bool) {
	set := cs.set.Load()
	if !set.selfSigned {
		return "", false
	}
	return fingerprint256(set.all[0].Leaf), true
}

// ServerConfig is the tls.Config for every listener of protocol, always the
// same one. Protocols do not share a Config, because a session ticket is good
// wherever the Config is: one from IMAP would resume on SMTP (golang/go#77217).
func (cs *Certificates) ServerConfig(name string) *tls.Config {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	p, ok := cs.configs[name]
	if ok {
		return p.config
	}
	p = &protocol{name: name, config: cs.newConfig(name, nil)}
	cs.configs[name] = p
	if cs.clientCAs == nil {
		cs.serveTickets(p.name, p.config)
		return p.config
	}
	cs.renew(p)
	p.config.ClientCAs = cs.clientCAs.pool
	p.config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return p.current.Load(), nil }
	return p.config
}

// renew puts the client CAs in force. Tickets of sessions that the old ones have
// vouched for are not for the new ones.
func (cs *Certificates) renew(p *protocol) {
	cfg := cs.newConfig(p.name, cs.clientCAs.pool)
	cs.serveTickets(p.name+" "+string(cs.tls.ClientAuth)+" "+hex.EncodeToString(cs.clientCAs.hash[:]), cfg)
	p.current.Store(cfg)
}

func (cs *Certificates) serveTickets(scope string, cfg *tls.Config) {
	if cs.tickets != nil && !cfg.SessionTicketsDisabled {
		cs.tickets.Serve(scope, cfg)
	}
}

// Verify checks the certificate that was read from file, with its chain, against
// the authorities that the system trusts. One of an authority of your own does not
// pass, which only you can judge.
func (cs *Certificates) Verify(file string) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, p := range cs.pairs {
		if p.pair.Cert != file {
			continue
		}
		o := x509.VerifyOptions{Intermediates: x509.NewCertPool(), CurrentTime: cs.now()}
		for _, der := range p.cert.Certificate[1:] {
			if c, err := x509.ParseCertificate(der); err == nil {
				o.Intermediates.AddCert(c)
			}
		}
		_, err := p.cert.Leaf.Verify(o)
		return err
	}
	return nil
}
