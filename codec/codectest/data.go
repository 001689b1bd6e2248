package codectest

import (
	"errors"
	"fmt"

	"starttlsd/codec"
)

// Data are the data connections of a session that is tested: a script says what
// becomes of them.
type Data struct {
	Calls []string // of the session, as "listen 3000"; not looked at yet
	Full  bool     // there is no port to be had
	IPv6  bool     // the backend's address is of IPv6

	state codec.DataState
	fault codec.DataFault
}

// OurPort is what Listen opens.
const OurPort = 50000

var _ codec.Data = (*Data)(nil)

func (d *Data) call(format string, args ...any) {
	d.Calls = append(d.Calls, fmt.Sprintf(format, args...))
}

func (d *Data) to(next codec.DataState, want codec.DataState, doing string) {
	if d.state != want {
		panic(fmt.Sprintf("%s in state %d", doing, d.state))
	}
	d.state = next
}

// Listen implements codec.Data.
func (d *Data) Listen(backend uint16) (uint16, error) {
	d.call("listen %d", backend)
	if d.Full {
		d.state = codec.DataNone
		return 0, errors.New("full")
	}
	d.state, d.fault = codec.DataReady, codec.NoFault
	return OurPort, nil
}

// Aim implements codec.Data.
func (d *Data) Aim(client, backend uint16) {
	d.call("aim %d %d", client, backend)
	d.state, d.fault = codec.DataReady, codec.NoFault
}

// Connect implements codec.Data.
func (d *Data) Connect(way codec.Way, secure bool) {
	d.to(codec.DataConnecting, codec.DataReady, "Connect")
	d.call("connect %s %s", map[codec.Way]string{codec.Download: "down", codec.Upload: "up"}[way],
		map[bool]string{false: "clear", true: "secure"}[secure])
}

// Start implements codec.Data.
func (d *Data) Start() {
	d.to(codec.DataSecuring, codec.DataConnected, "Start")
	d.call("start")
}

// Close implements codec.Data.
func (d *Data) Close() {
	if d.state == codec.DataConnecting || d.state == codec.DataConnected || d.state == codec.DataSecuring || d.state == codec.DataMoving {
		d.call("cut")
	}
	d.state, d.fault = codec.DataNone, codec.NoFault
}

// Abort implements codec.Data.
func (d *Data) Abort() {
	d.call("abort")
	d.state, d.fault = codec.DataFailed, codec.NoFault
}

// State implements codec.Data.
func (d *Data) State() codec.DataState { return d.state }

// Fault implements codec.Data.
func (d *Data) Fault() codec.DataFault { return d.fault }

// Extended implements codec.Data.
func (d *Data) Extended() bool { return d.IPv6 }

// moves reports whether the State will change by itself.
func (d *Data) moves() bool { return d.state == codec.DataSecuring || d.state == codec.DataMoving }

// Become has the state change by itself, and the session be told of it.
func (d *Driver) Become(s codec.DataState, f codec.DataFault) {
	d.Data.state, d.Data.fault = s, f
	d.Poke()
}

// Poke is what the engine does when the state of the data connections has changed.
func (d *Driver) Poke() {
	if d.Closed || !d.Connected || d.Opaque {
		return
	}
	d.on = false
	d.forward(true)
	d.replies()
}

// states are those that a script may name.
var states = map[string]struct {
	state codec.DataState
	fault codec.DataFault
}{
	"connected":   {codec.DataConnected, codec.NoFault},
	"moving":      {codec.DataMoving, codec.NoFault},
	"done":        {codec.DataDone, codec.NoFault},
	"expired":     {codec.DataNone, codec.NoFault},
	"no-client":   {codec.DataFailed, codec.FaultNoClient},
	"no-backend":  {codec.DataFailed, codec.FaultNoBackend},
	"busy":        {codec.DataFailed, codec.FaultBusy},
	"tls":         {codec.DataFailed, codec.FaultTLS},
	"not-resumed": {codec.DataFailed, codec.FaultNotResumed},
	"truncated":   {codec.DataFailed, codec.FaultTruncated},
	"client-lost": {codec.DataFailed, codec.FaultClient},
}
