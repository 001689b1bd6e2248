package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"starttlsd/backend"
	"starttlsd/codec/smtp"
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
		})
		if err != nil {
			return nil, err
		}
	}
	return servers, nil
}

// engineConfig binds every address and opens every Maildir, or does nothing.
func engineConfig(cfg *config.Config, certs *config.Certificates, servers []*backend.Server, log *slog.Logger) (*engine.Config, error) {
	p := cfg.Limits.ProcessLimits
	ec := &engine.Config{
		Log:        log,
		TuneMemory: true,
		Loops:      p.HandshakesComputing,
		Admission: engine.Admission{
			MaxConnections:      p.MaxConnections,
			PerClient:           p.ConnectionsPerClient,
			RatePerClient:       p.ConnectionRatePerClient,
			HandshakesPerClient: p.HandshakesPerClient,
			LimitLoopback:       p.PerClientLoopback,
		},
		Handshakes: tlsbridge.SlotLimits{
			Computing: p.HandshakesComputing,
			Queue:     p.HandshakesQueued,
			Waiting:   p.HandshakesWaiting,
		},
	}
	maildirs := make(map[string]smtp.Backend)
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		el, err := listen(l, certs.ServerConfig(l.Protocol))
		if err == nil {
			ec.Listeners = append(ec.Listeners, *el) // for closeAll
			el = &ec.Listeners[i]
			err = serveOn(el, cfg.Hostname, l, servers[i], maildirs)
		}
		if err != nil {
			closeAll(ec.Listeners)
			return nil, err
		}
	}
	return ec, nil
}

func listen(l *config.Listener, tlsConfig *tls.Config) (*engine.Listener, error) {
	// Keep-alive probes would be four system calls a connection; deadlines do their work.
	lc := net.ListenConfig{KeepAlive: -1}
	ln, err := lc.Listen(context.Background(), "tcp", l.Address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", l.Address, errors.Unwrap(err))
	}
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
			Linger:         l.Limits.Linger,
		},
	}, nil
}

func closeAll(listeners []engine.Listener) {
	for _, l := range listeners {
		_ = l.Listener.Close()
	}
}
