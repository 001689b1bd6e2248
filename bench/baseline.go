package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"starttlsd/backend"
	"starttlsd/bench/baseline"
	"starttlsd/codec"
	"starttlsd/codec/smtp"
	"starttlsd/config"
)

// serveBaseline is the subcommand: SMTP with starttlsd's sessions and TLS
// configuration, and no limits for clients, until ctx is done.
func serveBaseline(ctx context.Context, args []string, _, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench baseline", flag.ContinueOnError)
	flags.SetOutput(stderr)
	address := flags.String("address", "127.0.0.1:2525", "`HOST:PORT` to listen on; port 0: any free one")
	implicit := flags.Bool("implicit", false, "TLS from the first byte")
	cert := flags.String("cert", "", "PEM `file` with the certificate (default a self-signed one)")
	key := flags.String("key", "", "PEM `file` with its key")
	maildir := flags.String("maildir", "", "`directory` for the messages (default none: they are thrown away)")
	if err := parse(flags, args); err != nil {
		return err
	}
	cfg := config.Default()
	if *cert != "" || *key != "" {
		cfg.TLS.Certificates = []config.KeyPair{{Cert: *cert, Key: *key}}
	}
	logger := cfg.Log.Open(stderr)
	defer logger.Flush()
	log := logger.Logger
	certs, err := cfg.BuildTLS(log, time.Now)
	if err != nil {
		return err
	}
	messages := smtp.Backend(discard{})
	if *maildir != "" {
		if messages, err = backend.OpenMaildir(*maildir); err != nil {
			return err
		}
	}
	lc := net.ListenConfig{KeepAlive: -1} // as starttlsd
	ln, err := lc.Listen(ctx, "tcp", *address)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", *address, err)
	}
	sc := &smtp.Config{
		Hostname: cfg.Hostname,
		TLS:      !*implicit,
		Backend:  messages,
		Limits:   smtp.Limits{JunkCommands: math.MaxInt32, Messages: math.MaxInt32},
	}
	s := &baseline.Server{
		TLS:        certs.ServerConfig("smtp"),
		Implicit:   *implicit,
		NewSession: func(p *codec.Peer) codec.Session { return smtp.New(sc, p) },
		Timeout:    cfg.Limits.Command,
	}
	log.Info("listening", "address", ln.Addr().String(), "listener", "baseline", "implicit_tls", *implicit)
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	defer s.Close()
	return s.Serve(ln)
}

// discard is a backend that takes every message and keeps none.
type discard struct{}

func (discard) Begin(*smtp.Envelope) (smtp.Message, error) { return discard{}, nil }
func (discard) Write(p []byte) (int, error)                { return len(p), nil }
func (discard) Commit() error                              { return nil }
func (discard) Abort()                                     {}
