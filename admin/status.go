package admin

import "time"

// Status is what the status page shows: the whole process at one moment. Counters
// are since the start of the process.
type Status struct {
	Time     time.Time `json:"time"`
	Hostname string    `json:"hostname"`
	Version  string    `json:"version"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	State    State     `json:"state"`
	Stress   bool      `json:"stress"` // deadlines are shortened

	Open      int64  `json:"open"`    // connections
	Lent      int64  `json:"lent"`    // of these, with a goroutine
	Relayed   int64  `json:"relayed"` // of these, with a backend
	Accepted  uint64 `json:"accepted"`
	Upgrades  uint64 `json:"upgrades"` // handshakes that succeeded
	Failed    uint64 `json:"failed"`   // and that did not
	Refused   uint64 `json:"refused"`  // connections that were turned away, and STARTTLS answered with "not now"
	Injected  uint64 `json:"injected"` // plaintext behind STARTTLS
	Computing int    `json:"computing"`
	Queued    int    `json:"queued"` // handshakes

	Listeners    []ListenerStatus    `json:"listeners"`
	Certificates []CertificateStatus `json:"certificates"`
	Refusals     []Refusal           `json:"refusals"` // recent ones, the latest first
	Limits       []LimitStatus       `json:"limits"`
}

// State is what the process is doing.
type State string

const (
	Serving  State = "serving"
	Draining State = "draining"
)

// ListenerStatus is a listener. What was closed and still has sessions is there too.
type ListenerStatus struct {
	Address  string `json:"address"`
	Protocol string `json:"protocol"`
	TLS      string `json:"tls"`     // starttls, implicit
	Backend  string `json:"backend"` // as configured
	Closed   bool   `json:"closed"`  // by a reload; its sessions go on

	Open     int64  `json:"open"`
	Accepted uint64 `json:"accepted"`
	Upgrades uint64 `json:"upgrades"`
	Failed   uint64 `json:"failed"`
	Refused  uint64 `json:"refused"`
	Injected uint64 `json:"injected"`
}

// CertificateStatus is a certificate in force.
type CertificateStatus struct {
	File     string    `json:"file"`  // empty: made at the start
	Names    []string  `json:"names"` // that it is chosen by
	NotAfter time.Time `json:"not_after"`
	Stale    string    `json:"stale,omitempty"` // why a newer file could not be used
}

// Refusal is what was refused to one client at one listener for one reason.
type Refusal struct {
	Last     time.Time `json:"last"`
	Client   string    `json:"client"` // an IPv4 address or an IPv6 /64
	Listener string    `json:"listener"`
	Reason   string    `json:"reason"` // as in the log; "injected" is an attack
	Count    uint64    `json:"count"`
}

// LimitStatus is a limit in force.
type LimitStatus struct {
	Name  string `json:"name"`  // as in the configuration
	Value string `json:"value"` // such as "50" or "10s"
	Used  int64  `json:"used"`  // of Most
	Most  int64  `json:"most"`  // 0: nothing is counted against it
}
