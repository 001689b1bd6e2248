package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	"starttlsd/admin"
	"starttlsd/config"
	"starttlsd/engine"
)

// startAdmin opens the operator's address, if there is one. Nothing is served there
// until its Start.
func (d *daemon) startAdmin(address string) error {
	if address == "" {
		return nil
	}
	ln, err := d.sockets.open(address)
	if err != nil {
		return err
	}
	d.adminAt = socket{address, ln}
	d.admin = admin.New(ln, admin.Options{Status: d.status, Metrics: d.metrics, Log: d.log.Logger})
	return nil
}

func (d *daemon) stopAdmin() {
	if d.admin != nil {
		d.admin.Close()
	}
}

// metrics may be called from any goroutine.
func (d *daemon) metrics() admin.Metrics {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := admin.Metrics{
		Version:      versionString(),
		Ready:        !d.draining.Load(),
		Engine:       d.eng.Stats(),
		Listeners:    d.eng.Listeners(),
		Deliveries:   make(map[string]admin.Deliveries),
		Certificates: d.certificates(),
		Reloads:      d.reloads,
		LogLeftOut:   d.log.LeftOut(),
	}
	if d.ring != nil {
		s := d.ring.Status()
		m.TicketKeys = admin.TicketKeys{On: true, Shared: s.Shared, Current: s.Generation == s.Due}
	}
	for name, n := range d.deliveries {
		m.Deliveries[name] = admin.Deliveries{Stored: n.stored.Load(), Failed: n.failed.Load()}
	}
	return m
}

func (d *daemon) certificates() (all []admin.CertificateStatus) {
	for _, c := range d.certs.Status() {
		all = append(all, admin.CertificateStatus{File: c.File, Names: c.Names, NotAfter: c.NotAfter, Stale: c.Stale})
	}
	return all
}

// status may be called from any goroutine.
func (d *daemon) status() admin.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	stats := d.eng.Stats()
	s := admin.Status{
		Time:         time.Now(),
		Hostname:     d.cfg.Hostname,
		Version:      versionString(),
		PID:          os.Getpid(),
		Started:      d.started,
		State:        admin.Serving,
		Stress:       stats.Stressed,
		Open:         stats.Open,
		Lent:         stats.Lent,
		Relayed:      stats.Relayed,
		Accepted:     stats.Accepted,
		Upgrades:     stats.Upgrades,
		Failed:       stats.Failed,
		Refused:      stats.Refused + stats.TurnedAway(),
		Injected:     stats.Injected,
		Computing:    stats.Handshake.Computing,
		Queued:       stats.Handshake.Queued,
		Listeners:    d.listenerStatus(),
		Certificates: d.certificates(),
		Limits:       limitStatus(d.cfg, &stats),
	}
	if d.draining.Load() {
		s.State = admin.Draining
	}
	for _, r := range d.eng.Refusals() {
		s.Refusals = append(s.Refusals, admin.Refusal{
			Last: r.Last, Client: clientText(r), Listener: r.Listener, Reason: r.Reason, Count: r.Count,
		})
	}
	return s
}

// clientText is an address where the client is one.
func clientText(r engine.Refusal) string {
	if r.Client.IsSingleIP() {
		return r.Client.Addr().String()
	}
	return r.Client.String()
}

func (d *daemon) listenerStatus() (all []admin.ListenerStatus) {
	configured := make(map[string]*config.Listener)
	for _, s := range d.served {
		configured[s.cfg.Protocol+" "+s.Listener().Addr().String()] = s.cfg
	}
	for _, n := range d.eng.Listeners() {
		protocol, address, _ := strings.Cut(n.Name, " ")
		s := admin.ListenerStatus{
			Address: address, Protocol: protocol, Closed: true, Open: n.Open, Accepted: n.Accepted,
			Upgrades: n.Upgrades, Failed: n.Failed, Refused: n.Refused + n.TurnedAway(), Injected: n.Injected,
		}
		if l := configured[n.Name]; l != nil {
			s.Closed, s.TLS, s.Backend = false, string(l.TLS), l.Backend
		} else if n.Open == 0 {
			continue
		}
		all = append(all, s)
	}
	return all
}

// limitStatus are the limits that something is counted against, and the others.
func limitStatus(cfg *config.Config, s *engine.Stats) []admin.LimitStatus {
	counted := func(name string, used, most int64) admin.LimitStatus {
		return admin.LimitStatus{Name: name, Value: strconv.FormatInt(most, 10), Used: used, Most: most}
	}
	l := &cfg.Limits
	return []admin.LimitStatus{
		counted("max_connections", s.Open, int64(s.MaxConnections)),
		counted("handshakes_computing", int64(s.Handshake.Computing), int64(s.HandshakeLimit.Computing)),
		counted("handshakes_queued", int64(s.Handshake.Queued), int64(s.HandshakeLimit.Queued)),
		counted("handshakes_waiting", int64(s.Handshake.Waiting), int64(s.HandshakeLimit.Waiting)),
		{Name: "connections_per_client", Value: strconv.Itoa(l.ConnectionsPerClient)},
		{Name: "connection_rate_per_client", Value: strconv.Itoa(l.ConnectionRatePerClient) + " a minute"},
		{Name: "handshakes_per_client", Value: strconv.Itoa(l.HandshakesPerClient) + " a minute"},
		{Name: "handshake", Value: l.Handshake.String()},
		{Name: "stress", Value: l.Stress.String()},
		{Name: "drain", Value: cfg.Drain.String()},
	}
}
