package admin

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"starttlsd/codec"
	"starttlsd/engine"
	"starttlsd/tlsbridge"
)

// Metrics is what /metrics shows.
type Metrics struct {
	Version      string
	Ready        bool
	Engine       engine.Stats
	Listeners    []engine.ListenerStats // named "PROTOCOL ADDRESS"
	Deliveries   map[string]Deliveries  // by the name of a listener
	Certificates []CertificateStatus
	Reloads      Reloads
	LogLeftOut   uint64 // lines
	TicketKeys   TicketKeys
}

// TicketKeys is the state of the keys of session tickets.
type TicketKeys struct{ On, Shared, Current bool }

// Deliveries counts the messages of a listener.
type Deliveries struct{ Stored, Failed uint64 }

// Reloads counts those of the configuration.
type Reloads struct {
	Succeeded, Failed uint64
	OK                bool      // the last one, or there was none
	Last              time.Time // that succeeded
}

// atMost is how often metrics are gathered, no matter how many ask.
const atMost = 250 * time.Millisecond

// metrics is the handler of /metrics.
type metrics struct {
	registry *prometheus.Registry

	mu   sync.Mutex
	made time.Time
	text []byte
}

func newMetrics(source func() Metrics) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collector(source), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	text, err := m.current()
	if err != nil {
		say(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	_, _ = w.Write(text)
}

func (m *metrics) current() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.made) < atMost {
		return m.text, nil
	}
	families, err := m.registry.Gather()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return nil, err
		}
	}
	m.made, m.text = time.Now(), b.Bytes()
	return m.text, nil
}

// collector makes Prometheus' metrics of a snapshot. Labels have values that the
// configuration, crypto/tls and our own tables bound, never ones of a client.
type collector func() Metrics

var (
	ofListener = []string{"listener", "protocol"}

	buildInfo    = desc("build_info", "The version that runs.", "version")
	ready        = desc("ready", "Whether new connections are served: 0 while draining.")
	stress       = desc("stress", "Whether deadlines are shortened because the server is nearly full.")
	stresses     = desc("stress_periods_total", "Times that it came to stress.")
	panics       = desc("panics_total", "Recovered panics. Each is a bug.")
	limit        = desc("connections_limit", "Most connections there may be.")
	handshakes   = desc("handshakes", "TLS handshakes under way.", "state")
	handshakeMax = desc("handshakes_limit", "Most TLS handshakes there may be in a state.", "state")
	reloads      = desc("config_reloads_total", "Reloads of the configuration.", "outcome")
	reloadOK     = desc("config_last_reload_successful", "Whether the last reload succeeded.")
	reloadLast   = desc("config_last_reload_success_timestamp_seconds", "When the configuration in force was read.")
	expiry       = desc("certificate_expiry_timestamp_seconds", "End of a certificate in force.", "file", "name")
	stale        = desc("certificate_stale", "Whether a newer file could not be used.", "file", "name")
	keysShared   = desc("ticket_keys_shared", "Whether other nodes can have the key of new session tickets.")
	keysCurrent  = desc("ticket_keys_current", "Whether the key of new session tickets is the one that is due.")
	leftOut      = desc("log_lines_left_out_total", "Lines of the log that sampling has left out.")

	accepted   = desc("connections_accepted_total", "Connections taken from the listener.", ofListener...)
	refused    = desc("connections_refused_total", "Connections turned away at the door.", with("reason")...)
	ended      = desc("connections_ended_total", "Connections that were served and ended.", with("reason")...)
	open       = desc("connections", "Open connections.", with("layer")...)
	lent       = desc("connections_lent", "Open connections that have a goroutine.", ofListener...)
	relayed    = desc("connections_relayed", "Open connections that have a backend.", ofListener...)
	commands   = desc("commands_total", "Complete commands, while the dialogue is framed.", ofListener...)
	upgrades   = desc("upgrades_total", "STARTTLS and implicit TLS by what has come of it.", with("outcome")...)
	resumed    = desc("upgrades_resumed_total", "Upgrades by a session ticket.", ofListener...)
	took       = desc("handshake_seconds", "From the complete ClientHello to the end of a handshake that succeeded.", ofListener...)
	sessions   = desc("tls_sessions_total", "Upgrades by what was negotiated.", with("version", "cipher", "group")...)
	relayBytes = desc("relay_bytes_total", "Bytes on backends' connections.", with("direction")...)
	transfers  = desc("transfers_total", "Transfers over data connections (ftp), by what has come of them.", with("outcome")...)
	dials      = desc("backend_dials_total", "Connections to backends, by what has come of it.", with("outcome")...)
	deliveries = desc("deliveries_total", "Messages for a Maildir, by what has come of them.", with("outcome")...)
)

// names are those of all metrics of our own.
var names []string

// MetricNames are the names of all metrics but those of Go and of the process.
func MetricNames() []string { return slices.Clone(names) }

func desc(name, help string, labels ...string) *prometheus.Desc {
	names = append(names, "starttlsd_"+name)
	return prometheus.NewDesc("starttlsd_"+name, help, labels, nil)
}

func with(labels ...string) []string { return append(append([]string(nil), ofListener...), labels...) }

// Describe implements prometheus.Collector: what there is depends on the listeners.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// sink sends metrics.
type sink chan<- prometheus.Metric

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (s sink) count(d *prometheus.Desc, v uint64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func zeroOne(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	m, s := c(), sink(ch)
	s.gauge(buildInfo, 1, m.Version)
	s.gauge(ready, zeroOne(m.Ready))
	s.gauge(stress, zeroOne(m.Engine.Stressed))
	s.count(stresses, m.Engine.Stresses)
	s.count(panics, m.Engine.Panics)
	s.gauge(limit, float64(m.Engine.MaxConnections))
	h, most := m.Engine.Handshake, m.Engine.HandshakeLimit
	for state, n := range map[string][2]int{
		"computing": {h.Computing, most.Computing}, "queued": {h.Queued, most.Queued}, "waiting": {h.Waiting, most.Waiting},
	} {
		s.gauge(handshakes, float64(n[0]), state)
		s.gauge(handshakeMax, float64(n[1]), state)
	}
	s.gauge(handshakes, float64(h.Parked), "parked")
	s.count(reloads, m.Reloads.Succeeded, "ok")
	s.count(reloads, m.Reloads.Failed, "failed")
	s.gauge(reloadOK, zeroOne(m.Reloads.OK))
	s.gauge(reloadLast, float64(m.Reloads.Last.Unix()))
	s.count(leftOut, m.LogLeftOut)
	if m.TicketKeys.On {
		s.gauge(keysShared, zeroOne(m.TicketKeys.Shared))
		s.gauge(keysCurrent, zeroOne(m.TicketKeys.Current))
	}
	certificates(s, m.Certificates)
	for i := range m.Listeners {
		protocol, address, _ := strings.Cut(m.Listeners[i].Name, " ")
		s.listener(&m.Listeners[i], address, protocol)
		if n, ok := m.Deliveries[m.Listeners[i].Name]; ok {
			s.count(deliveries, n.Stored, address, protocol, "stored")
			s.count(deliveries, n.Failed, address, protocol, "failed")
		}
	}
}

// certificates tells the earliest end where a file and a name are there twice.
func certificates(s sink, all []CertificateStatus) {
	type key struct{ file, name string }
	seen := make(map[key]bool)
	for _, c := range all {
		k := key{file: c.File}
		if len(c.Names) > 0 {
			k.name = c.Names[0]
		}
		if seen[k] {
			continue
		}
		seen[k] = true
		s.gauge(expiry, float64(c.NotAfter.Unix()), k.file, k.name)
		s.gauge(stale, zeroOne(c.Stale != ""), k.file, k.name)
	}
}

func (s sink) listener(l *engine.ListenerStats, address, protocol string) {
	s.count(accepted, l.Accepted, address, protocol)
	for r, n := range l.Ended {
		if r := engine.Reason(r); r.TurnedAway() {
			s.count(refused, n, address, protocol, r.String())
		} else {
			s.count(ended, n, address, protocol, r.String())
		}
	}
	s.gauge(open, float64(l.Plain), address, protocol, "plain")
	s.gauge(open, float64(l.Upgrading), address, protocol, "upgrading")
	s.gauge(open, float64(l.Secure), address, protocol, "secure")
	s.gauge(lent, float64(l.Lent), address, protocol)
	s.gauge(relayed, float64(l.Relayed), address, protocol)
	s.count(commands, l.Commands, address, protocol)
	s.count(upgrades, l.Upgrades, address, protocol, "ok")
	s.count(upgrades, l.Refused, address, protocol, "refused")
	s.count(upgrades, l.Injected, address, protocol, "injected")
	for r, n := range l.FailedBy {
		s.count(upgrades, n, address, protocol, "failed_"+tlsbridge.Reason(r).String())
	}
	s.count(resumed, l.Resumed, address, protocol)
	buckets := make(map[float64]uint64, len(l.Handshakes.Below))
	for i, n := range l.Handshakes.Below {
		buckets[engine.HistogramBounds[i].Seconds()] = n
	}
	s <- prometheus.MustNewConstHistogram(took, l.Handshakes.Count, l.Handshakes.Sum.Seconds(), buckets, address, protocol)
	for n, count := range l.Negotiated {
		s.count(sessions, count, address, protocol, tls.VersionName(n.Version), tls.CipherSuiteName(n.Cipher), n.Group.String())
	}
	s.count(relayBytes, l.ToBackend, address, protocol, "to_backend")
	s.count(relayBytes, l.FromBackend, address, protocol, "from_backend")
	if protocol == "ftp" {
		s.transfers(l, address, protocol)
	}
	s.count(dials, l.Dialed, address, protocol, "ok")
	s.count(dials, l.NoBackend, address, protocol, "failed")
}

func (s sink) transfers(l *engine.ListenerStats, address, protocol string) {
	for f, n := range l.Transfers {
		outcome := "ok"
		switch f := codec.DataFault(f); f {
		case codec.NoFault:
		case codec.FaultRefused: // such as a file that does not exist
			outcome = f.String()
		default:
			outcome = "failed_" + f.String()
		}
		s.count(transfers, n, address, protocol, outcome)
	}
}
