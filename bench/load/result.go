package load

import "time"

// Kind says where an operation failed.
type Kind string

const (
	Dial      Kind = "dial"        // no connection
	Greeting  Kind = "greeting"    // the connection ended or spoke wrongly before the greeting was there
	Refused   Kind = "refused"     // the protocol's word for busy, or for no STARTTLS now
	Handshake Kind = "handshake"   // TLS
	Timeout   Kind = "timeout"     // of whatever step
	Wrong     Kind = "wrong reply" // to a command
	Lost      Kind = "lost"        // the connection ended where a reply was due
)

// Result is what a run has measured. A run that was cut short has one too.
type Result struct {
	Mode        Mode          `json:"mode"`
	Target      string        `json:"target"`
	Began       time.Time     `json:"began"`
	Took        time.Duration `json:"took_ns"`
	Cut         bool          `json:"cut,omitempty"` // ended before it was done
	Connections int           `json:"connections"`
	Rate        float64       `json:"rate,omitempty"`   // asked for, a second; 0 in a closed loop
	Done        int64         `json:"done"`             // operations that succeeded; hold: connections that were there at the end
	Missed      int64         `json:"missed,omitempty"` // open loop: intended, and not begun because too many were in flight
	TLS         string        `json:"tls,omitempty"`    // version, cipher suite and group of a connection
	Resumed     int64         `json:"resumed"`
	Bytes       int64         `json:"bytes,omitempty"` // transfer: of the messages, without what is around them

	Errors   map[Kind]int64  `json:"errors,omitempty"`
	Examples map[Kind]string `json:"examples,omitempty"` // the first error of each kind

	Latency  *Latency `json:"latency"`                   // of an operation that succeeded
	Failures *Latency `json:"failure_latency,omitempty"` // how long those took that failed; nil: none has
	Phases   []Phase  `json:"phases,omitempty"`          // storm: of the established sessions; hold: opening, and the upgrades tried while holding
	Samples  []Sample `json:"samples,omitempty"`         // one a second, and the rest
	Server   *Usage   `json:"server,omitempty"`          // with Options.PID
	Behind   *Usage   `json:"behind,omitempty"`          // with Options.Behind
}

// Phase is a part of a storm or a hold.
type Phase struct {
	Name    string        `json:"name"`
	Took    time.Duration `json:"took_ns"`
	Latency *Latency      `json:"latency"`
}

// Sample is what one second of a run was like.
type Sample struct {
	At     time.Duration `json:"at_ns"` // since the beginning
	Done   int64         `json:"done"`  // since the last sample
	Errors int64         `json:"errors"`
	Open   int64         `json:"open"`          // established connections
	CPU    time.Duration `json:"cpu_ns"`        // of the server, since the last sample
	PSS    int64         `json:"pss,omitempty"` // of the server, in bytes; 0 where it was not read
	P99    time.Duration `json:"p99_ns"`        // of the operations since the last sample
}

// Usage is what the server's processes took: the one with Options.PID and all below it.
type Usage struct {
	CPU       time.Duration `json:"cpu_ns"`               // user and system, during the run
	PSSBefore int64         `json:"pss_before,omitempty"` // 0: this process may not read the server's memory
	PSSAfter  int64         `json:"pss_after,omitempty"`  // at the end of a hold, with its connections open
	Processes int           `json:"processes"`
}

// Throughput is the operations a second, in a storm while it lasted.
func (r *Result) Throughput() float64 {
	took := r.Took
	if r.Mode == Storm && len(r.Phases) > 1 {
		took = r.Phases[1].Took
	}
	if took <= 0 {
		return 0
	}
	return float64(r.Done) / took.Seconds()
}

// PerOperation is the server's CPU time for one operation; 0 in a storm, where
// there are two kinds.
func (r *Result) PerOperation() time.Duration {
	if r.Server == nil || r.Done == 0 || r.Mode == Storm {
		return 0
	}
	return r.Server.CPU / time.Duration(r.Done)
}

// ByteRate is the bytes of messages a second.
func (r *Result) ByteRate() float64 {
	if r.Took <= 0 {
		return 0
	}
	return float64(r.Bytes) / r.Took.Seconds()
}

// PerGiB is the server's CPU time for each GiB of messages or files.
func (r *Result) PerGiB() time.Duration { return r.perGiB(r.Server) }

// PerGiBBehind is PerGiB of the server behind it.
func (r *Result) PerGiBBehind() time.Duration { return r.perGiB(r.Behind) }

func (r *Result) perGiB(u *Usage) time.Duration {
	if u == nil || r.Bytes == 0 {
		return 0
	}
	return time.Duration(float64(u.CPU) * (1 << 30) / float64(r.Bytes))
}

// Failed counts the operations that failed.
func (r *Result) Failed() int64 {
	var n int64
	for _, k := range r.Errors {
		n += k
	}
	return n
}

// PerConnection is the server's memory for one held connection, in bytes.
func (r *Result) PerConnection() int64 { return r.perConnection(r.Server) }

// PerConnectionBehind is PerConnection of the server behind it.
func (r *Result) PerConnectionBehind() int64 { return r.perConnection(r.Behind) }

func (r *Result) perConnection(u *Usage) int64 {
	if u == nil || r.Done == 0 || r.Mode != Hold || u.PSSAfter == 0 {
		return 0
	}
	return (u.PSSAfter - u.PSSBefore) / r.Done
}
