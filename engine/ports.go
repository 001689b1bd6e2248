package engine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Ports are those where clients connect to for data. Each is given out for one
// connection, the one that was free for longest first. Any number of listeners, and
// any goroutine, may share them.
type Ports struct {
	free chan uint16 // nil: any port is taken that the system has free
}

// NewPorts returns the ports from low to high; both 0: any.
func NewPorts(low, high uint16) *Ports {
	if low == 0 {
		return new(Ports)
	}
	p := &Ports{free: make(chan uint16, int(high)-int(low)+1)}
	for port := int(low); port <= int(high); port++ {
		p.free <- uint16(port)
	}
	return p
}

var errNoPort = errors.New("no port for data connections is free: widen passive.ports")

// mostTaken is how many ports may be found in the hands of another process, such as
// the one that has handed over to us, before a client is refused.
const mostTaken = 32

// listen opens a port at ip. Who has it gives it back with release.
func (p *Ports) listen(ip netip.Addr) (*net.TCPListener, error) {
	if p.free == nil {
		return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	}
	err := errNoPort
	for range min(mostTaken, cap(p.free)) {
		var port uint16
		select {
		case port = <-p.free:
		default:
			return nil, err
		}
		var ln *net.TCPListener
		if ln, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, port))); err == nil {
			return ln, nil
		}
		p.free <- port
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return nil, fmt.Errorf("no free port of passive.ports can be opened: %w", err)
}

// release closes ln and gives its port back.
func (p *Ports) release(ln *net.TCPListener) {
	port := ln.Addr().(*net.TCPAddr).AddrPort().Port()
	_ = ln.Close()
	if p.free != nil {
		p.free <- port
	}
}
