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
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"starttlsd/backend"
	"starttlsd/config"
	"starttlsd/engine"
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
	servers, err := openServers(cfg, log)
	if err != nil {
		return fail(err)
	}
	if *check {
		fmt.Fprintln(stdout, "configuration ok")
		return exitOK
	}
	if err := serve(cfg, certs, servers, log, *file == ""); err != nil {
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
func serve(cfg *config.Config, certs *config.Certificates, servers []*backend.Server, log *slog.Logger, tryOut bool) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	ec, err := engineConfig(cfg, certs, servers, log)
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
