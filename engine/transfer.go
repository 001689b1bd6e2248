package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// dataDial bounds a connection to the backend's data port.
const dataDial = 10 * time.Second

// dataLinger is how long the end of a client's data connection is waited for; dataHurry
// when the client has begun another transfer, or the engine ends.
const (
	dataLinger = 2 * time.Second
	dataHurry  = 50 * time.Millisecond
)

// sides are the two connections of a transfer; nil is one that is not there.
type sides struct{ client, backend *net.TCPConn }

// reset ends both. Any goroutine.
func (s *sides) reset() {
	reset(s.client)
	reset(s.backend)
}

// reset ends a connection so that nobody takes what came for the whole.
func reset(tc *net.TCPConn) {
	if tc != nil {
		_ = tc.SetLinger(0)
		_ = tc.Close()
	}
}

// run is a transfer's goroutine: it connects, waits for the backend to accept the
// command, does the handshakes, and carries the bytes across.
func (t *transfer) run() {
	e := t.lst.eng
	defer t.done()
	var s sides
	defer func() {
		if v := recover(); v != nil {
			e.panicked(t.id, v)
			t.become(codec.DataFailed, codec.FaultBackend)
		}
		s.reset() // what has ended in good order is closed
	}()
	permit, fault, err := t.connect(&s)
	if err == nil {
		if permit != nil {
			defer permit.Release()
		}
		giveUp := context.AfterFunc(t.ctx, s.reset) // whatever waits on them ends
		defer giveUp()
		abort := context.AfterFunc(t.aborted, func() { reset(s.client) })
		defer abort()
		refuse := context.AfterFunc(t.refused, func() {
			reset(s.backend)
			_ = s.client.SetReadDeadline(past)
		})
		defer refuse()
		t.become(codec.DataConnected, codec.NoFault)
		select {
		case <-t.start:
			fault, err = t.move(&s, permit)
		case <-t.aborted.Done():
			fault, err = codec.FaultClient, t.aborted.Err()
		}
		if fault == codec.NoFault && refuse() && abort() && giveUp() {
			t.lst.stats.transfers[fault].Add(1)
			t.become(codec.DataDone, fault)
			t.part(&s)
			return
		}
	}
	t.fail(&s, fault, err)
}

// fail ends a transfer that was not complete, the backend's side before a poke that may
// have to wait.
func (t *transfer) fail(s *sides, fault codec.DataFault, err error) {
	e := t.lst.eng
	switch {
	case t.refused.Err() != nil && t.ctx.Err() == nil:
		t.lst.stats.transfers[codec.FaultRefused].Add(1)
		return
	case t.ctx.Err() != nil: // given up, by the client or at the end
		fault = codec.FaultClient
		select {
		case <-t.start:
		default:
			fault = codec.FaultRefused
		}
		t.lst.stats.transfers[fault].Add(1)
		return
	case t.aborted.Err() != nil:
		t.lst.stats.transfers[codec.FaultClient].Add(1)
		if s.backend != nil { // until it has seen to the ABOR, or has had time to
			_, _ = io.Copy(io.Discard, s.backend)
		}
		return
	}
	noted := t.note(codec.DataFailed, fault) // first: the backend is about to say so too
	reset(s.backend)
	t.lst.stats.transfers[fault].Add(1)
	if fault == codec.FaultNotResumed {
		err = errNotResumed
	}
	e.log.Info("transfer failed", "id", t.id, "listener", t.lst.Name, "peer", t.client, "fault", fault.String(), "err", err)
	if noted {
		t.c.poke()
	}
	if fault == codec.FaultTLS || fault == codec.FaultNotResumed { // the alert that says so is on its way
		_ = s.client.SetLinger(-1)
		_ = s.client.CloseWrite()
		_ = s.client.SetReadDeadline(e.deadline(e.now() + dataLinger))
		linger(s.client)
	}
}

var errNotResumed = errors.New("the client's data connection does not resume the TLS session of its control connection;" +
	" if the client cannot, set data_session: address")

// connect brings both connections about, and books the handshake: what can fail does
// so before the backend has the command.
func (t *transfer) connect(s *sides) (*tlsbridge.Permit, codec.DataFault, error) {
	var err error
	if s.client, err = t.meet(); err != nil {
		return nil, codec.FaultNoClient, err
	}
	_ = s.client.SetLinger(0) // however we end: what is not whole is reset
	ctx, cancel := context.WithTimeout(t.ctx, dataDial)
	defer cancel()
	d := net.Dialer{KeepAlive: -1}
	nc, err := d.DialContext(ctx, "tcp", t.backend.String())
	if err != nil {
		return nil, codec.FaultNoBackend, err
	}
	s.backend = nc.(*net.TCPConn)
	_ = s.backend.SetLinger(0)
	if t.tls == nil {
		return nil, codec.NoFault, nil
	}
	permit, err := t.lst.eng.slots.Reserve(t.limited)
	if err != nil {
		return nil, codec.FaultBusy, err
	}
	return permit, codec.NoFault, nil
}

// meet waits for the client's connection to the port, or connects to the client.
func (t *transfer) meet() (*net.TCPConn, error) {
	if t.ln != nil {
		defer t.closePort()
		return t.accept()
	}
	ctx, cancel := context.WithTimeout(t.ctx, t.lst.Limits.DataConnect)
	defer cancel()
	d := net.Dialer{KeepAlive: -1}
	if t.local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.local, 0))
	}
	nc, err := d.DialContext(ctx, "tcp", t.aim.String())
	if err != nil {
		return nil, err
	}
	return nc.(*net.TCPConn), nil
}

// await sets the deadline for the client's connection, which is nearer from the time that
// it is leaving.
func (t *transfer) await(leaving bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaving = t.leaving || leaving
	patience := t.lst.Limits.DataConnect
	if t.leaving {
		patience = min(patience, t.lst.Limits.Linger)
	}
	if t.ln != nil && t.state == codec.DataConnecting {
		_ = t.ln.SetDeadline(t.lst.eng.deadline(t.lst.eng.now() + patience))
	}
}

// accept takes the client's connection. Others are closed, and do not keep it away.
func (t *transfer) accept() (*net.TCPConn, error) {
	e, ln := t.lst.eng, t.ln
	t.await(false)
	stop := context.AfterFunc(t.aborted, func() { _ = ln.SetDeadline(past) })
	defer stop()
	for told := false; ; {
		tc, err := ln.AcceptTCP()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, fmt.Errorf("none has come to %s; does the firewall let passive.ports in, and do clients reach passive.address? (%w)", ln.Addr(), err)
		}
		if err != nil {
			return nil, err
		}
		from, ok := tc.RemoteAddr().(*net.TCPAddr)
		if ok && from.AddrPort().Addr().Unmap().WithZone("") == t.client.WithZone("") {
			_ = tc.SetKeepAlive(false)
			return tc, nil
		}
		_ = tc.Close()
		if ok {
			e.refusals.add(from.AddrPort().Addr(), t.lst.Name, "foreign_data_connection")
		}
		if ok && !told { // the others are counted
			told = true
			e.log.Warn("a data connection from another address", "id", t.id, "listener", t.lst.Name, "from", from, "client", t.client)
		}
	}
}

// move does the handshakes and carries the bytes across, to the end of both.
func (t *transfer) move(s *sides, permit *tlsbridge.Permit) (codec.DataFault, error) {
	client, backend := t.stream(s.client), t.stream(s.backend)
	defer client.link.free()
	defer backend.link.free()
	if t.tls != nil {
		tls, err := t.handshake(&client.link, permit)
		if err != nil {
			if errors.Is(err, tlsbridge.ErrNotResumed) {
				return codec.FaultNotResumed, err
			}
			return codec.FaultTLS, err
		}
		client.tls = tls
		t.become(codec.DataMoving, codec.NoFault)
	}
	if t.secureBackend != nil {
		ctx, cancel := context.WithTimeout(t.ctx, dataDial)
		defer cancel()
		tls, err := t.secureBackend(ctx, s.backend)
		if err != nil {
			return codec.FaultBackend, err
		}
		backend.tls = tls
		tls.SetLink(&backend.link)
	}
	from, to, here, there := backend, client, codec.FaultBackend, codec.FaultClient
	if t.way == codec.Upload {
		from, to, here, there = client, backend, codec.FaultClient, codec.FaultBackend
	}
	switch at, err := t.copy(to, from); {
	case err == nil:
	case t.way == codec.Upload && (t.refused.Err() != nil || at == to): // a download that is given up is refused as well
		reset(s.backend)
		t.dismiss(client)
		if t.refused.Err() != nil {
			return codec.FaultRefused, err
		}
		return there, err
	case at == to:
		return there, err
	case from == client && errors.Is(err, io.ErrUnexpectedEOF):
		return codec.FaultTruncated, err
	default:
		return here, err
	}
	_ = s.client.SetLinger(-1)
	_ = s.backend.SetLinger(-1)
	_ = from.halfClose() // it may have left
	if err := to.halfClose(); err != nil {
		return there, err
	}
	return codec.NoFault, nil
}

// dismiss ends the connection of a client whose upload nobody reads any more, with a moment
// to notice: after a reset it might not look for the reply.
func (t *transfer) dismiss(client *stream) {
	e, tc := t.lst.eng, client.link.off.tc
	_ = tc.SetLinger(-1)
	_ = client.halfClose()
	until := e.now() + dataLinger
	var rest [4096]byte
	err := os.ErrDeadlineExceeded // of the refusal, before or after this
	for err == nil || errors.Is(err, os.ErrDeadlineExceeded) && e.now() < until {
		if err != nil {
			_ = tc.SetReadDeadline(e.deadline(until))
		}
		_, err = tc.Read(rest[:])
	}
	_ = tc.Close()
}

// stream is one side, as a lent one.
func (t *transfer) stream(tc *net.TCPConn) *stream {
	s := &stream{link: link{lp: t.c.link.lp}}
	s.link.off = &detour{tc: tc, much: true}
	s.link.mayStall(t.lst.Limits.BodyStall)
	return s
}

// handshake does the client's, on this goroutine, with the process's slots.
func (t *transfer) handshake(l *link, permit *tlsbridge.Permit) (*tlsbridge.Conn, error) {
	e := t.lst.eng
	conn, err := tlsbridge.Accept(&waited{link: l}, t.tls, tlsbridge.Options{
		Permit:  permit,
		Budget:  t.lst.Limits.HandshakeInput,
		Timeout: t.lst.Limits.Handshake,
		OnPanic: func(v any, stack []byte) {
			e.panics.Add(1)
			e.log.Error("panic in a TLS callback", "id", t.id, "panic", v, "stack", string(stack))
		},
	})
	if err == nil {
		conn.SetLink(l)
	}
	return conn, err
}

// part closes both connections, when the other ends have too, or have had time to.
func (t *transfer) part(s *sides) {
	e := t.lst.eng
	until := e.deadline(e.now() + min(t.lst.Limits.Linger, dataLinger))
	_ = s.client.SetReadDeadline(until)
	_ = s.backend.SetReadDeadline(until)
	defer context.AfterFunc(t.ctx, func() {
		soon := e.deadline(e.now() + dataHurry)
		_ = s.client.SetReadDeadline(soon)
		_ = s.backend.SetReadDeadline(soon)
	})()
	done := make(chan struct{})
	e.spawn(func() {
		defer close(done)
		linger(s.backend)
	})
	linger(s.client)
	<-done
}

// linger closes a connection when its other end has: to close with unread input would
// take our last words with it.
func linger(tc *net.TCPConn) {
	var rest [512]byte
	for err := error(nil); err == nil; {
		_, err = tc.Read(rest[:])
	}
	_ = tc.Close()
}

// waited is a link for tlsbridge.Accept.
type waited struct {
	*link
	err error // Read has nothing more to give
}

// Read implements tlsbridge.Waiter.
func (w *waited) Read(p []byte) (int, error) {
	switch {
	case w.off.ahead != nil:
		return w.link.Read(p)
	case w.err != nil:
		return 0, w.err
	}
	return 0, tlsbridge.ErrWouldBlock
}

// Await implements tlsbridge.Waiter.
func (w *waited) Await() error {
	if w.off.ahead != nil || w.err != nil {
		return w.err
	}
	switch err := w.await(); {
	case errors.Is(err, os.ErrDeadlineExceeded): // interrupted
		_ = w.off.tc.SetReadDeadline(time.Time{})
	case err != nil:
		w.err = err
	case w.off.ahead == nil:
		w.err = io.EOF
	}
	return nil
}

// Interrupt implements tlsbridge.Waiter.
func (w *waited) Interrupt() { _ = w.off.tc.SetReadDeadline(past) }

var _ tlsbridge.Waiter = (*waited)(nil)
