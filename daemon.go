package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"starttlsd/admin"
	"starttlsd/backend"
	"starttlsd/codec/smtp"
	"starttlsd/config"
	"starttlsd/engine"
	"starttlsd/tlsbridge/tickets"
)

var errCutOff = errors.New("sessions were cut off")

// daemon is the running command. Its methods are run's alone, but where they say
// otherwise.
type daemon struct {
	file    string   // of the configuration; "": none
	program string   // to be started again
	args    []string // with these
	started time.Time
	log     *config.Logger
	sockets *sockets
	eng     *engine.Engine
	admin   *admin.Server // nil without an address
	adminAt socket

	draining atomic.Bool

	mu         sync.Mutex // the rest is looked at by whoever asks for the status
	cfg        *config.Config
	certs      *config.Certificates
	ring       *tickets.Ring // nil when there are no tickets
	unwatch    context.CancelFunc
	served     []*served
	maildirs   map[string]smtp.Backend
	ports      map[config.Ports]*engine.Ports // for data connections
	deliveries map[string]*delivered          // by the name of a listener
	reloads    admin.Reloads
}

// served is a listener of the configuration in force.
type served struct {
	cfg *config.Listener
	*engine.Served
}

// build is what a configuration comes to before anything of it is in force.
type build struct {
	cfg     *config.Config
	certs   *config.Certificates
	ring    *tickets.Ring
	servers []*backend.Server // nil for a Maildir
}

// build reads the files that cfg names. It connects nothing but the store of ticket
// keys, and that only if connect.
func (d *daemon) build(cfg *config.Config, connect bool) (*build, error) {
	b := &build{cfg: cfg, ring: d.ring}
	keys := cfg.TLS.SessionTickets
	var err error
	if d.cfg == nil || keys != d.cfg.TLS.SessionTickets {
		b.ring = nil
		if !keys.Off && (connect || !keys.Remote()) {
			if b.ring, err = tickets.Open(tickets.Options{Keys: keys.Keys, Rotate: keys.Rotate, Log: d.log.Logger}); err != nil {
				return nil, fmt.Errorf("tls.session_tickets: %w", err)
			}
		}
	}
	var shared config.Tickets // nil, and not a nil *Ring
	if b.ring != nil {
		shared = b.ring
	}
	if b.certs, err = cfg.RebuildTLS(d.certs, shared, d.log.Logger, time.Now); err == nil {
		b.servers, err = openServers(cfg, d.log.Logger)
	}
	if err != nil {
		b.drop(d.ring)
		return nil, err
	}
	return b, nil
}

// drop ends what came with the build. inForce is not its own.
func (b *build) drop(inForce *tickets.Ring) {
	if b.ring != nil && b.ring != inForce {
		b.ring.Close()
	}
}

// run serves until a signal ends it. An error other than errCutOff means that
// nothing was started.
func (d *daemon) run(b *build, tryOut bool) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := d.start(b); err != nil {
		return err
	}
	defer d.end()
	d.announce(tryOut)
	tellReady()
	for s := range signals {
		switch s {
		case syscall.SIGHUP:
			d.reload()
			continue
		case syscall.SIGUSR2:
			handed, next := d.handOver(signals)
			if handed {
				d.stopAdmin() // it is the other's
				return d.drain(signals, "retiring: another process has the listeners; SIGTERM ends now", d.eng.Retire)
			}
			if next == nil {
				continue
			}
		}
		break
	}
	_, _ = sd.SdNotify(false, sd.SdNotifyStopping)
	return d.drain(signals, "draining; the same signal again ends now", d.eng.Shutdown)
}

// start puts the first configuration in force.
func (d *daemon) start(b *build) error {
	var err error
	if d.sockets, err = inherited(); err != nil {
		return err
	}
	d.maildirs, d.deliveries = make(map[string]smtp.Backend), make(map[string]*delivered)
	d.ports = make(map[config.Ports]*engine.Ports)
	listeners, err := d.listeners(b, nil)
	if err != nil {
		return err
	}
	if err := d.startAdmin(b.cfg.Admin.Address); err != nil {
		closeAll(listeners)
		return err
	}
	for _, name := range d.sockets.rest() {
		d.log.Warn("a socket was passed that no listener is configured for; it is closed", "name", name)
	}
	ec := engineConfig(b.cfg, d.log.Logger)
	ec.Listeners = listeners
	if d.eng, err = engine.New(*ec); err != nil {
		closeAll(listeners)
		d.stopAdmin()
		return err
	}
	var all []*served
	for i, s := range d.eng.Served() {
		all = append(all, &served{&b.cfg.Listeners[i], s})
	}
	d.inForce(b, all)
	if d.admin != nil {
		d.admin.Start()
	}
	return nil
}

// inForce makes b what is in force, by way of these listeners.
func (d *daemon) inForce(b *build, all []*served) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := build{ring: d.ring}
	if d.unwatch != nil {
		d.unwatch()
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cfg, d.certs, d.ring, d.unwatch, d.served = b.cfg, b.certs, b.ring, cancel, all
	go b.certs.Watch(ctx)
	old.drop(b.ring)
}

// handOver starts the program again with our listeners, and reports whether that
// serves; this process then has no more than its sessions. A signal to end that comes
// meanwhile ends the attempt, and is returned.
func (d *daemon) handOver(signals <-chan os.Signal) (handed bool, end os.Signal) {
	var listening []socket
	for _, s := range d.served {
		listening = append(listening, socket{s.cfg.Address, s.Listener()})
	}
	if d.admin != nil {
		listening = append(listening, d.adminAt)
	}
	d.log.Info("handing the listeners over to a new process", "program", d.program)
	next, err := startSuccessor(d.program, d.args, listening)
	if err == nil {
		reload := false
		for waiting := true; waiting; {
			select {
			case err = <-next.served:
				waiting = false
			case s := <-signals:
				switch s {
				case syscall.SIGUSR2: // we are at it
				case syscall.SIGHUP:
					reload = true
				default:
					end = s
					next.kill()
				}
			}
		}
		if reload {
			defer func() {
				if handed {
					_ = syscall.Kill(next.pid, syscall.SIGHUP) // it may have read the old file
				} else if end == nil {
					d.reload()
				}
			}()
		}
	}
	if err != nil {
		d.log.Error("HAND-OVER FAILED, this process goes on", "err", err)
		return false, end
	}
	_, _ = sd.SdNotify(false, fmt.Sprintf("MAINPID=%d", next.pid))
	d.log.Info("handed over", "to", next.pid)
	return true, end
}

// drain ends the engine by way of end, which waits for the sessions. A signal
// meanwhile cuts them off.
func (d *daemon) drain(signals <-chan os.Signal, message string, end func(context.Context) error) error {
	d.draining.Store(true)
	d.log.Info(message, "sessions", d.eng.Stats().Open, "for", d.cfg.Drain.String())
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.Drain)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				if s == syscall.SIGHUP || s == syscall.SIGUSR2 {
					continue
				}
				_ = d.eng.Close()
			case <-ended:
			}
			return
		}
	}()
	if err := end(ctx); err != nil {
		d.log.Warn("stopped before all sessions had ended", "err", err)
		return errCutOff
	}
	d.log.Info("stopped")
	return nil
}

// end lets go of what start has taken.
func (d *daemon) end() {
	d.stopAdmin()
	d.unwatch()
	if d.ring != nil {
		d.ring.Close()
	}
}

// announce says what is served and, without a file, how to try it.
func (d *daemon) announce(tryOut bool) {
	if fingerprint, ok := d.certs.SelfSigned(); ok {
		d.log.Warn("no certificate is configured, a self-signed one was made", "sha256", fingerprint)
	}
	for _, s := range d.served {
		d.announceListener(s, d.certs)
	}
	if d.admin != nil {
		d.log.Info("listening", "address", d.adminAt.Addr().String(), "listener", "admin",
			"status_page", "http://"+d.adminAt.Addr().String()+"/")
	}
	if tryOut {
		// No backslash and no double quote: the log would quote them.
		d.log.Info("try it: echo 'Subject: it works' | curl -k --ssl-reqd --crlf smtp://127.0.0.1:2525/me.example" +
			" --mail-from a@example.org --mail-rcpt b@example.org -T - && cat maildir/new/*")
	}
}

func (d *daemon) announceListener(s *served, certs *config.Certificates) {
	address := s.Listener().Addr().String()
	d.log.Info("listening", "address", address, "listener", s.cfg.Protocol+" "+address,
		"implicit_tls", s.cfg.TLS == config.Implicit, "tls_min", tls.VersionName(certs.ServerConfig(s.cfg.Protocol).MinVersion))
}
