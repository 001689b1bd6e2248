package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// Data says how the data connections of a listener's sessions are made (codec.Data).
type Data struct {
	Ports *Ports // where clients connect to
	// Bound lets a client's data connection have TLS only by resuming the session of
	// its own control connection, which no other connection has a ticket of.
	Bound bool
}

// channel is the data connections of one control connection: codec.Data. It belongs
// to the holder of that, as the session does.
type channel struct {
	c       *conn
	backend netip.AddrPort // of the control connection
	secure  func(context.Context, *net.TCPConn) (*tlsbridge.Conn, error)
	now     *transfer // nil: none
	last    *transfer // done, but its connections may not be closed yet; nil: none
}

var _ codec.Data = (*channel)(nil)

// Extended implements codec.Data.
func (ch *channel) Extended() bool { return !ch.backend.Addr().Unmap().Is4() }

// descriptorsOfData is what a transfer takes: the port, or the client's connection in
// its place, and the backend's.
const descriptorsOfData = 2

var errNoFiles = errors.New("no descriptor is free for data connections")

// Listen implements codec.Data. A port that nobody comes to is not kept for long.
func (ch *channel) Listen(backend uint16) (uint16, error) {
	t, err := ch.renew(backend)
	if err != nil {
		return 0, err
	}
	c := ch.c
	ln, err := c.lst.Data.Ports.listen(c.lst.Listener.Listener.Addr().(*net.TCPAddr).AddrPort().Addr())
	if err != nil {
		c.lst.eng.shortage("opening a data port", c.lst.Name, err)
		t.done()
		return 0, err
	}
	t.ln = ln
	ch.ready(t)
	return ln.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}

// Aim implements codec.Data.
func (ch *channel) Aim(client, backend uint16) {
	t, err := ch.renew(backend)
	if err != nil {
		return
	}
	t.aim = netip.AddrPortFrom(ch.c.peer.Remote.Addr(), client)
	ch.ready(t)
}

// ready makes t the transfer that comes next, for some time.
func (ch *channel) ready(t *transfer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.idle = time.AfterFunc(ch.c.lst.Limits.DataConnect, t.expire)
	ch.now = t
}

// renew is a transfer in the place of any other, with its descriptors.
func (ch *channel) renew(backend uint16) (*transfer, error) {
	ch.Close()
	c := ch.c
	e := c.lst.eng
	if ch.last != nil { // its client has begun anew
		ch.last.cancel()
		ch.last = nil
	}
	if !e.files.TryAcquire(descriptorsOfData) {
		e.shortage("a data connection", c.lst.Name, errNoFiles)
		return nil, errNoFiles
	}
	t := &transfer{
		c: c, lst: c.lst, id: c.peer.ID, state: codec.DataReady,
		client: c.peer.Remote.Addr().Unmap(), limited: c.lst.door.limited(c.client()),
		backend: netip.AddrPortFrom(ch.backend.Addr(), backend), secureBackend: ch.secure,
		start: make(chan struct{}),
	}
	if c.lst.Trusted == nil { // else it may be the proxy's
		t.local = c.peer.Local().Addr()
	}
	t.ctx, t.cancel = context.WithCancel(e.goodbye)
	t.aborted, t.abort = context.WithCancel(t.ctx)
	t.refused, t.refuse = context.WithCancel(t.ctx)
	return t, nil
}

// Connect implements codec.Data.
func (ch *channel) Connect(way codec.Way, secure bool) {
	t, c := ch.now, ch.c
	t.way = way
	if secure {
		if t.tls = c.lst.TLS; c.lst.Data.Bound {
			t.tls = c.tls.Binding().Require(c.lst.TLS)
		}
	}
	if !t.leave(codec.DataReady, codec.DataConnecting) { // it has just expired
		c.poke()
		return
	}
	c.lst.eng.spawn(t.run)
}

// Start implements codec.Data.
func (ch *channel) Start() {
	next := codec.DataMoving
	if ch.now.tls != nil {
		next = codec.DataSecuring
	}
	if ch.now.leave(codec.DataConnected, next) {
		close(ch.now.start)
	}
}

// abortPatience is how long a backend has to see to an ABOR by itself.
const abortPatience = time.Second

// Abort implements codec.Data.
func (ch *channel) Abort() {
	t := ch.now
	if t == nil {
		return
	}
	t.mu.Lock()
	running := t.state >= codec.DataConnecting && t.state <= codec.DataMoving
	if running {
		t.state, t.fault = codec.DataFailed, codec.NoFault
		t.idle = time.AfterFunc(abortPatience, t.cancel)
	}
	t.mu.Unlock()
	if running {
		t.abort()
	}
}

// Close implements codec.Data.
func (ch *channel) Close() { ch.close(true) }

// close is Close. The client whose own connection ends has no reply to look for.
func (ch *channel) close(reply bool) {
	t := ch.now
	if t == nil {
		return
	}
	ch.now = nil
	t.mu.Lock()
	was := t.state
	over := was == codec.DataFailed && t.fault != codec.NoFault
	if was != codec.DataDone { // whose last words may still be on their way
		t.state = codec.DataNone
	}
	t.mu.Unlock()
	switch {
	case was == codec.DataReady:
		t.done()
	case was == codec.DataDone, over:
		ch.last = t
	case was == codec.DataMoving && t.way == codec.Upload && reply:
		t.refuse()
		ch.last = t
	default:
		t.cancel()
	}
}

// State implements codec.Data.
func (ch *channel) State() codec.DataState {
	s, _ := ch.look()
	return s
}

// Fault implements codec.Data.
func (ch *channel) Fault() codec.DataFault {
	_, f := ch.look()
	return f
}

func (ch *channel) look() (codec.DataState, codec.DataFault) {
	if ch.now == nil {
		return codec.DataNone, codec.NoFault
	}
	ch.now.mu.Lock()
	defer ch.now.mu.Unlock()
	return ch.now.state, ch.now.fault
}

// hurry is for a client that has ended its direction of the control connection: it may
// have gone, and its port is not kept for long.
func (ch *channel) hurry() {
	if ch != nil && ch.now != nil {
		ch.now.await(true)
	}
}

// busy reports whether the control connection is idle only because a transfer is
// under way, which has deadlines of its own.
func (ch *channel) busy() bool {
	if ch == nil {
		return false
	}
	s := ch.State()
	return s == codec.DataConnecting || s == codec.DataSecuring || s == codec.DataMoving
}

// transfer is the connections of one transfer, from the time that its port is known.
// Once it connects, it is a goroutine's.
type transfer struct {
	c       *conn // to be poked; its fields are its holder's
	lst     *listener
	id      codec.ConnID
	client  netip.Addr   // whose connection it has to be
	limited netip.Prefix // whom handshakes count for
	local   netip.Addr
	aim     netip.AddrPort   // of a client that wants to be connected to
	ln      *net.TCPListener // nil with aim
	backend netip.AddrPort
	way     codec.Way
	tls     *tls.Config // nil: in clear

	secureBackend func(context.Context, *net.TCPConn) (*tlsbridge.Conn, error)

	ctx    context.Context // done when it is given up; once it is done, when it has to hurry
	cancel context.CancelFunc
	start  chan struct{} // closed by Start

	aborted context.Context // done when the client has said ABOR as well
	abort   context.CancelFunc
	refused context.Context // done when the backend does not want the upload as well
	refuse  context.CancelFunc
	once    sync.Once // of done

	mu    sync.Mutex
	idle  *time.Timer // ends a port that nobody comes to, or a transfer that was aborted
	state codec.DataState
	fault codec.DataFault

	leaving bool // the client has ended its direction of the control connection
}

// leave changes the state, if it is still that one; to DataFailed when nobody has come.
func (t *transfer) leave(was, next codec.DataState) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != was {
		return false
	}
	t.state = next
	if next == codec.DataFailed {
		t.fault = codec.FaultNoClient
	}
	if t.idle != nil {
		t.idle.Stop()
		t.idle = nil
	}
	return true
}

// become changes the state of a transfer that is not given up, and tells the session.
func (t *transfer) become(s codec.DataState, f codec.DataFault) {
	if t.note(s, f) {
		t.c.poke()
	}
}

// note changes the state of a transfer that is not given up, and reports whether it was.
func (t *transfer) note(s codec.DataState, f codec.DataFault) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state == codec.DataNone || t.state == codec.DataFailed {
		return false
	}
	t.state, t.fault = s, f
	return true
}

// expire gives up a port that nobody has come to.
func (t *transfer) expire() {
	if t.leave(codec.DataReady, codec.DataFailed) {
		t.done()
	}
}

// done gives back what the transfer has, but for its connections.
func (t *transfer) done() {
	t.once.Do(func() {
		t.closePort()
		t.cancel()
		t.lst.eng.files.Release(descriptorsOfData)
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.idle != nil {
		t.idle.Stop()
		t.idle = nil
	}
}

// closePort is for the one that the transfer belongs to.
func (t *transfer) closePort() {
	if t.ln != nil {
		t.lst.Data.Ports.release(t.ln)
		t.ln = nil
	}
}
