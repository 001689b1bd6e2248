// Command starttlsd is a STARTTLS front door for text protocols.
//
//	starttlsd [-config FILE] [-check] [-print-config] [-version]
//
// Without a file it takes mail on 127.0.0.1:2525 (STARTTLS) and 127.0.0.1:2465
// (implicit TLS) into ./maildir. SIGTERM and SIGINT drain; a second one ends now.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"starttlsd/backend"
	"starttlsd/codec"
	"starttlsd/codec/smtp"
	"starttlsd/config"
	"starttlsd/engine"
	"starttlsd/tlsbridge"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // sessions were cut off at the end
	exitUsage  = 2 // nothing was started
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("starttlsd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "", "configuration `FILE`; without it, mail on loopback ports into ./maildir")
	check := flags.Bool("check", false, "check the configuration with its certificates, and exit")
	printConfig := flags.Bool("print-config", false, "print the configuration in force as YAML, and exit")
	version := flags.Bool("version", false, "print the version, and exit")
	flush := func() {}
	defer func() { flush() }()
	fail := func(err error) int {
		flush()
		fmt.Fprintln(stderr, "starttlsd:", err)
		return exitUsage
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case flags.NArg() > 0:
		return fail(fmt.Errorf("unexpected argument %q; the configuration is given with -config", flags.Arg(0)))
	}
	if *version {
		fmt.Fprintln(stdout, "starttlsd", versionString())
		return exitOK
	}

	cfg := config.Default()
	if *file != "" {
		var err error
		if cfg, err = config.Load(*file); err != nil {
			return fail(err)
		}
	}
	if *printConfig {
		text, err := cfg.YAML()
		if err != nil {
			return fail(err)
		}
		_, _ = stdout.Write(text)
		return exitOK
	}
	var log *slog.Logger
	log, flush = cfg.Log.Open(stderr)
	certs, err := cfg.BuildTLS(log, time.Now)
	if err != nil {
		return fail(err)
	}
	if *check {
		fmt.Fprintln(stdout, "configuration ok")
		return exitOK
	}
	if err := serve(cfg, certs, log, *file == ""); err != nil {
		if errors.Is(err, errCutOff) {
			return exitFailed
		}
		return fail(err)
	}
	return exitOK
}

var errCutOff = errors.New("sessions were cut off")

// serve runs until it is told to stop by a signal. An error other than errCutOff
// means that nothing was started.
func serve(cfg *config.Config, certs *config.Certificates, log *slog.Logger, tryOut bool) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	ec, err := engineConfig(cfg, certs, log)
	if err != nil {
		return err
	}
	eng, err := engine.New(*ec)
	if err != nil {
		closeAll(ec.Listeners)
		return err
	}
	announce(ec, certs, log, tryOut)

	received := <-signals
	log.Info("draining; the same signal again ends now", "signal", received.String(),
		"sessions", eng.Stats().Open, "for", cfg.Drain.String())
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Drain)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-signals:
			_ = eng.Close()
		case <-ended:
		}
	}()
	if err := eng.Shutdown(ctx); err != nil {
		log.Warn("stopped before all sessions had ended", "err", err)
		return errCutOff
	}
	log.Info("stopped")
	return nil
}

// engineConfig binds every address and opens every backend, or does nothing.
func engineConfig(cfg *config.Config, certs *config.Certificates, log *slog.Logger) (*engine.Config, error) {
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
	for _, l := range cfg.Listeners {
		el, err := listen(cfg, &l, certs, maildirs)
		if err != nil {
			closeAll(ec.Listeners)
			return nil, err
		}
		ec.Listeners = append(ec.Listeners, *el)
	}
	return ec, nil
}

func listen(cfg *config.Config, l *config.Listener, certs *config.Certificates, maildirs map[string]smtp.Backend) (*engine.Listener, error) {
	// Keep-alive probes would be four system calls a connection; deadlines do their work.
	lc := net.ListenConfig{KeepAlive: -1}
	ln, err := lc.Listen(context.Background(), "tcp", l.Address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", l.Address, errors.Unwrap(err))
	}
	path := l.Maildir()
	if maildirs[path] == nil {
		m, err := backend.OpenMaildir(path)
		if err != nil {
			_ = ln.Close()
			return nil, err
		}
		maildirs[path] = m
	}
	tlsConfig := certs.ServerConfig(l.Protocol)
	sc := smtpConfig(cfg.Hostname, l, maildirs[path])
	return &engine.Listener{
		Listener:   ln,
		Name:       l.Protocol + " " + ln.Addr().String(),
		TLS:        tlsConfig,
		Implicit:   l.TLS == config.Implicit,
		TLSWaits:   tlsConfig.ClientAuth != tls.NoClientCert, // verifying a chain takes as long as the client likes
		NewSession: func(p *codec.Peer) codec.Session { return smtp.New(sc, p) },
		Limits: engine.Limits{
			Handshake:      l.Limits.Handshake,
			HandshakeInput: int(l.Limits.HandshakeInput),
			Command:        l.Limits.Command,
			BodyStall:      l.Limits.DataStall,
			BodyRate:       int(l.Limits.DataRate),
			Output:         int(l.Limits.Output),
			Linger:         l.Limits.Linger,
		},
	}, nil
}

func smtpConfig(hostname string, l *config.Listener, b smtp.Backend) *smtp.Config {
	return &smtp.Config{
		Hostname:       hostname,
		TLS:            l.TLS == config.StartTLS,
		RequireTLS:     l.RequireTLS,
		MaxMessageSize: int64(l.Limits.MessageSize),
		Limits: smtp.Limits{
			Line:         int(l.Limits.Line),
			BadCommands:  l.Limits.BadCommands,
			JunkCommands: l.Limits.JunkCommands,
			Recipients:   l.Limits.Recipients,
			Messages:     l.Limits.Messages,
		},
		Backend: b,
	}
}

func closeAll(listeners []engine.Listener) {
	for _, l := range listeners {
		_ = l.Listener.Close()
	}
}

// announce says what is served and, without a file, how to try it.
func announce(ec *engine.Config, certs *config.Certificates, log *slog.Logger, tryOut bool) {
	if fingerprint, ok := certs.SelfSigned(); ok {
		log.Warn("no certificate is configured, a self-signed one was made", "sha256", fingerprint)
	}
	for _, l := range ec.Listeners {
		log.Info("listening", "address", l.Listener.Addr().String(), "listener", l.Name,
			"implicit_tls", l.Implicit, "tls_min", tls.VersionName(l.TLS.MinVersion))
	}
	if tryOut {
		// No backslash and no double quote: the log would quote them.
		log.Info("try it: echo 'Subject: it works' | curl -k --ssl-reqd --crlf smtp://127.0.0.1:2525/me.example" +
			" --mail-from a@example.org --mail-rcpt b@example.org -T - && cat maildir/new/*")
	}
}

func versionString() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value
		}
	}
	return v + " " + info.GoVersion
}
