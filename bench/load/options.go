package load

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// Mode is what a run does with its connections.
type Mode string

const (
	Upgrade Mode = "upgrade" // connect, greet, STARTTLS, handshake, one command, quit; again and again
	Hold    Mode = "hold"    // open many connections and keep them idle
	Chat    Mode = "chat"    // one command after another on established sessions
	Mail    Mode = "mail"    // deliver messages
	Storm   Mode = "storm"   // the latency of established sessions before, during and after a flood of upgrades

	Transfer Mode = "transfer" // download a message or a file again and again, or upload one
)

// Options say what to run. The zero value of a field means its default.
type Options struct {
	Mode    Mode // Upgrade
	Target  Target
	TLS     *tls.Config // of the client, not changed; nil: TLS 1.3 or 1.2, certificate not looked at
	Resume  bool        // resume TLS sessions where the server gives tickets
	Plain   bool        // hold, chat, mail and transfer: do not upgrade
	Upload  bool        // transfer: not down but up
	Quiet   bool        // hold: no upgrade once a second that shows whether others are served
	Sources bool        // spread loopback targets over 127.0.0.0/8, so that ports do not run out; Linux only

	Connections int           // at a time: 64, and 1024 with a Rate of upgrades; in a storm those that flood
	Operations  int64         // of all connections together; 0: 5000, or as many as Duration or Rate allow
	Rate        float64       // operations a second, open loop; 0: closed loop, each connection as fast as it can
	Duration    time.Duration // ends a run that Operations has not; hold and storm: how long; 30 s, with Operations 10 min
	Timeout     time.Duration // of one operation: 10 s
	Pause       time.Duration // chat: between a reply and the next command
	Size        int           // mail and Upload: of a message or file, in bytes: 4096; transfer: of the one that is there, 0: any; hold: of the one record each way, 0: none
	Sessions    int           // storm: established sessions that are measured: 50
	From, To    string        // mail: load@example.org, drop@example.org
	File        string        // transfer with FTP: the one that is there: load.bin; Upload: with a number for each connection behind it

	// Who logs in, in a transfer, and in a hold and a chat if it is not "". What is
	// then held waits in IDLE, where the protocol has that.
	User, Password string

	PID    int // of the server: its CPU time and memory are measured; 0: not; Linux only
	Behind int // PID of a server behind that one: the same; 0: there is none

	// Progress hears of the operations done so far, a few times a second; of is 0
	// where only time ends the run. Its goroutine is the run's own; it must not block.
	Progress func(done, of int64)
}

const (
	defaultOperations = 5000
	defaultDuration   = 30 * time.Second
	longest           = 10 * time.Minute // of a run that Operations should end
	maxRecord         = 16 << 10         // of TLS, RFC 8446 §5.1
	slowest, fastest  = 0.001, 1e6       // operations a second that are due
)

// withDefaults is o with every default filled in, or what is wrong with it.
func (o Options) withDefaults() (Options, error) {
	o.Mode = cmp.Or(o.Mode, Upgrade)
	width := 64
	if o.Rate > 0 && o.Mode == Upgrade {
		width = 1024
	}
	o.Connections = cmp.Or(o.Connections, width)
	timed := o.Mode == Hold || o.Mode == Storm
	if o.Operations == 0 && o.Duration == 0 && o.Rate == 0 && !timed {
		o.Operations = defaultOperations
	}
	if o.Operations > 0 && !timed {
		o.Duration = cmp.Or(o.Duration, longest)
	}
	o.Duration = cmp.Or(o.Duration, defaultDuration)
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.Sessions = cmp.Or(o.Sessions, 50)
	o.From, o.To = cmp.Or(o.From, "load@example.org"), cmp.Or(o.To, "drop@example.org")
	if o.Mode == Mail || o.Mode == Transfer && o.Upload {
		o.Size = cmp.Or(o.Size, 4096)
	}
	if o.TLS == nil {
		o.TLS = &tls.Config{InsecureSkipVerify: true}
	}
	return o, o.check()
}

func (o *Options) check() error {
	modes := map[Mode]bool{Upgrade: true, Hold: true, Chat: true, Mail: true, Storm: true, Transfer: true}
	switch {
	case !modes[o.Mode]:
		return fmt.Errorf("unknown mode %q; use upgrade, hold, chat, mail, storm or transfer", o.Mode)
	case o.Target.protocol == nil:
		return errors.New("no target")
	case o.Rate != 0 && !(o.Rate >= slowest && o.Rate <= fastest): // so that NaN is none
		return errors.New("-rate: use 0.001 to 1000000 a second")
	case o.Connections < 1 || o.Operations < 0 || o.Duration < 0 || o.Timeout < 0 ||
		o.Pause < 0 || o.Size < 0 || o.Sessions < 1 || o.PID < 0 || o.Behind < 0:
		return errors.New("a number is out of range: use positive ones")
	case o.Plain && o.Target.Implicit:
		return errors.New("plain connections to a target with implicit TLS are not possible")
	case o.Plain && (o.Mode == Upgrade || o.Mode == Storm):
		return fmt.Errorf("mode %s has to do with upgrades: it cannot be plain", o.Mode)
	case o.Rate > 0 && (o.Mode == Hold || o.Mode == Storm):
		return fmt.Errorf("mode %s has no rate", o.Mode)
	case o.Mode == Mail && !o.Target.protocol.mail:
		return fmt.Errorf("mode mail is not possible with %s", o.Target.protocol.scheme)
	case o.Mode == Hold && o.Size > 0 && !o.Target.protocol.mail:
		return fmt.Errorf("mode hold has no size with %s", o.Target.protocol.scheme)
	case o.Mode == Hold && o.Size > maxRecord:
		return fmt.Errorf("a record has %d bytes at most", maxRecord)
	}
	if err := o.checkTransfer(); err != nil {
		return err
	}
	if err := o.checkLogin(); err != nil {
		return err
	}
	n := o.Connections
	switch {
	case o.Mode == Storm:
		n += o.Sessions
	case o.Mode == Transfer && o.Target.protocol.transfer.files:
		n *= 2
	}
	return checkDescriptors(n)
}
