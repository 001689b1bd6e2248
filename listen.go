package main

import (
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"starttlsd/admin"
	"starttlsd/backend"
	"starttlsd/config"
	"starttlsd/engine"
	"starttlsd/tlsbridge"
)

// openServers returns the server behind each listener; nil for a Maildir. It connects
// nothing.
func openServers(cfg *config.Config, log *slog.Logger) ([]*backend.Server, error) {
	servers := make([]*backend.Server, len(cfg.Listeners))
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		address, ok := l.Server()
		if !ok {
			continue
		}
		tlsConfig, err := cfg.BuildBackendTLS(i, log, time.Now)
		if err != nil {
			return nil, err
		}
		servers[i], err = backend.NewServer(backend.Options{
			Address:     address,
			TLS:         tlsConfig,
			Proxy:       map[config.ProxyProtocol]int{config.ProxyV1: 1, config.ProxyV2: 2}[l.BackendOptions.ProxyProtocol],
			Timeout:     l.BackendOptions.Timeout,
			Concurrency: l.BackendOptions.Concurrency,
			Further:     l.Protocol == "ftp",
		})
		if err != nil {
			return nil, err
		}
	}
	return servers, nil
}

// adminReserve is what the operator's address, the watch over files and a store of
// ticket keys may take of the descriptors.
const adminReserve = admin.MaxConnections + 16

// engineConfig is what holds for all listeners together.
func engineConfig(cfg *config.Config, log *slog.Logger) *engine.Config {
	ec := &engine.Config{
		Log:        log,
		TuneMemory: true,
		Loops:      cfg.Limits.HandshakesComputing,
		Admission:  admission(&cfg.Limits.SessionLimits, cfg.Limits.PerClientLoopback),
		Handshakes: tlsbridge.SlotLimits{
			Computing: cfg.Limits.HandshakesComputing,
			Queue:     cfg.Limits.HandshakesQueued,
			Waiting:   cfg.Limits.HandshakesWaiting,
		},
	}
	if cfg.Admin.Address != "" {
		ec.Reserve = adminReserve
	}
	return ec
}

func admission(l *config.SessionLimits, loopback bool) engine.Admission {
	return engine.Admission{
		MaxConnections:      l.MaxConnections,
		PerClient:           l.ConnectionsPerClient,
		RatePerClient:       l.ConnectionRatePerClient,
		HandshakesPerClient: l.HandshakesPerClient,
		LimitLoopback:       loopback,
	}
}

// listeners makes the engine's listeners of b. It opens the sockets of those for
// which kept has none, and Maildirs; after an error none is left that was opened.
func (d *daemon) listeners(b *build, kept []*served) (all []engine.Listener, err error) {
	var opened []net.Listener
	defer func() {
		if err != nil {
			for _, ln := range opened {
				_ = ln.Close()
			}
		}
	}()
	for i := range b.cfg.Listeners {
		l := &b.cfg.Listeners[i]
		var ln net.Listener
		if i < len(kept) && kept[i] != nil {
			ln = kept[i].Listener()
		} else {
			if ln, err = d.sockets.open(l.Address); err != nil {
				return nil, err
			}
			opened = append(opened, ln)
		}
		el := listen(l, ln, b.certs.ServerConfig(l.Protocol))
		if l.Limits.OwnAdmission(&b.cfg.Limits.SessionLimits) {
			el.Admission = new(admission(&l.Limits, b.cfg.Limits.PerClientLoopback))
		}
		if err = d.serveOn(el, b.cfg.Hostname, l, b.servers[i]); err != nil {
			return nil, err
		}
		all = append(all, *el)
	}
	return all, nil
}

func listen(l *config.Listener, ln net.Listener, tlsConfig *tls.Config) *engine.Listener {
	return &engine.Listener{
		Listener: ln,
		Name:     l.Protocol + " " + ln.Addr().String(),
		TLS:      tlsConfig,
		Implicit: l.TLS == config.Implicit,
		TLSWaits: tlsConfig.ClientAuth != tls.NoClientCert, // verifying a chain takes as long as the client likes
		Trusted:  l.TrustedNetworks(),
		Limits: engine.Limits{
			Handshake:      l.Limits.Handshake,
			HandshakeInput: int(l.Limits.HandshakeInput),
			Command:        l.Limits.Command,
			BodyStall:      l.Limits.DataStall,
			BodyRate:       int(l.Limits.DataRate),
			Output:         int(l.Limits.Output),
			Idle:           l.Limits.Idle,
			Reply:          l.Limits.Reply,
			DataConnect:    l.Limits.DataConnect,
			Linger:         l.Limits.Linger,
			Stress:         l.Limits.Stress,
		},
	}
}

func closeAll(listeners []engine.Listener) {
	for _, l := range listeners {
		_ = l.Listener.Close()
	}
}
