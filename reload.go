package main

import (
	"slices"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"starttlsd/config"
	"starttlsd/engine"
	"starttlsd/tlsbridge"
)

// reload reads the configuration again and puts it in force, or changes nothing.
// Sessions go on as they began.
func (d *daemon) reload() {
	_, _ = sd.SdNotify(false, sd.SdNotifyReloading+"\n"+sd.SdNotifyMonotonicUsec())
	defer func() { _, _ = sd.SdNotify(false, sd.SdNotifyReady) }()
	err := d.tryReload()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reloads.OK = err == nil
	if err != nil {
		d.reloads.Failed++
		d.log.Error("RELOAD FAILED, nothing has changed", "err", err)
		return
	}
	d.reloads.Succeeded++
	d.reloads.Last = time.Now()
	d.log.Info("reloaded", "file", d.file, "listeners", len(d.served))
}

func (d *daemon) tryReload() error {
	cfg := config.Default()
	if d.file != "" {
		var err error
		if cfg, err = config.Load(d.file); err != nil {
			return err
		}
	}
	b, err := d.build(cfg, true)
	if err != nil {
		return err
	}
	kept, gone := d.match(cfg)
	listeners, err := d.listeners(b, kept)
	if err != nil {
		b.drop(d.ring)
		return err
	}
	d.needsRestart(cfg)
	d.log.Set(&cfg.Log)
	if d.ring != nil && b.ring == d.ring {
		d.ring.Reload()
	}
	ec := engineConfig(cfg, d.log.Logger)
	d.eng.Admit(ec.Admission, slices.ContainsFunc(listeners, func(l engine.Listener) bool { return l.Dial != nil }))
	d.eng.LimitHandshakes(tlsbridge.SlotLimits{Queue: ec.Handshakes.Queue, Waiting: ec.Handshakes.Waiting})
	for i := range listeners {
		l := &cfg.Listeners[i]
		if kept[i] != nil {
			kept[i] = &served{l, kept[i].Served}
			kept[i].Update(listeners[i])
			continue
		}
		s, err := d.eng.Serve(listeners[i])
		if err != nil { // the engine is ending: so are we
			_ = listeners[i].Listener.Close()
			continue
		}
		kept[i] = &served{l, s}
		d.announceListener(kept[i], b.certs)
	}
	for _, s := range gone {
		d.log.Info("no longer listening", "address", s.Served.Listener().Addr().String())
		_ = s.Close()
	}
	d.inForce(b, slices.DeleteFunc(kept, func(s *served) bool { return s == nil }))
	return nil
}

// match finds the socket of each listener of cfg among those that are served, nil
// for a new one, and those that cfg has no more.
func (d *daemon) match(cfg *config.Config) (kept, gone []*served) {
	gone = slices.Clone(d.served)
	for i := range cfg.Listeners {
		j := slices.IndexFunc(gone, func(s *served) bool { return s.cfg.Address == cfg.Listeners[i].Address })
		if j < 0 {
			kept = append(kept, nil)
			continue
		}
		kept = append(kept, gone[j])
		gone = slices.Delete(gone, j, j+1)
	}
	return kept, gone
}

// needsRestart warns of what a reload leaves as it was.
func (d *daemon) needsRestart(cfg *config.Config) {
	for _, k := range []struct {
		key     string
		changed bool
	}{
		{"limits.handshakes_computing", cfg.Limits.HandshakesComputing != d.cfg.Limits.HandshakesComputing},
		{"log.format", cfg.Log.Format != d.cfg.Log.Format},
		{"admin.address", cfg.Admin.Address != d.cfg.Admin.Address},
	} {
		if k.changed {
			d.log.Warn("a reload does not change this; hand over with SIGUSR2, or restart", "key", k.key)
		}
	}
}
