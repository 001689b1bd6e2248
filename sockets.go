package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"starttlsd/config"
)

// inheritEnv tells a process which of its descriptors are listening sockets of the
// one that has started it: "3=127.0.0.1:25", one a line, by configured address.
const inheritEnv = "STARTTLSD_SOCKETS"

// socket is a bound address.
type socket struct {
	address string // as configured
	net.Listener
}

// sockets are those that the process was started with and has not taken yet. Both
// kinds are taken in order where several have the same name.
type sockets struct {
	handed  []socket // by the process before us
	systemd map[string][]net.Listener
}

// inherited finds what the process was started with.
func inherited() (*sockets, error) {
	s := new(sockets)
	handed := os.Getenv(inheritEnv)
	_ = os.Unsetenv(inheritEnv)
	for line := range strings.Lines(handed) {
		number, address, _ := strings.Cut(strings.TrimSpace(line), "=")
		fd, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is no descriptor", inheritEnv, number)
		}
		ln, err := listenerOf(fd, address)
		if err != nil {
			return nil, fmt.Errorf("socket for %s: %w", address, err)
		}
		s.handed = append(s.handed, socket{address, ln})
	}
	var err error
	s.systemd, err = activation.ListenersWithNames()
	return s, err
}

// listenerOf adopts a descriptor. The socket stays as it is for others that have
// it: os.NewFile leaves its mode alone, where net's File would make it blocking.
func listenerOf(fd int, name string) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), name)
	if f == nil {
		return nil, unix.EBADF
	}
	defer f.Close()
	return net.FileListener(f)
}

// open takes the inherited socket for address, or binds one.
func (s *sockets) open(address string) (net.Listener, error) {
	if i := slices.IndexFunc(s.handed, func(h socket) bool { return h.address == address }); i >= 0 {
		ln := s.handed[i].Listener
		s.handed = slices.Delete(s.handed, i, i+1)
		return ln, nil
	}
	if name, ok := config.Inherited(address); ok {
		waiting := s.systemd[name]
		if len(waiting) == 0 || waiting[0] == nil {
			return nil, fmt.Errorf("no listening TCP socket with the name %s was passed; name it with FileDescriptorName=%[1]s in a systemd socket unit", name)
		}
		s.systemd[name] = waiting[1:]
		if _, ok := waiting[0].(*net.TCPListener); !ok {
			return nil, fmt.Errorf("%s is no TCP socket; give ListenStream= an IP address and a port", address)
		}
		return waiting[0], nil
	}
	// Keep-alive probes would be four system calls a connection; deadlines do their work.
	lc := net.ListenConfig{KeepAlive: -1}
	ln, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", address, errors.Unwrap(err))
	}
	return ln, nil
}

// rest closes what nobody has taken, and names it.
func (s *sockets) rest() []string {
	var names []string
	for _, h := range s.handed {
		names = append(names, h.address)
		_ = h.Close()
	}
	for name, all := range s.systemd {
		for _, ln := range all {
			names = append(names, "fd:"+name)
			if ln != nil {
				_ = ln.Close()
			}
		}
	}
	s.handed, s.systemd = nil, nil
	return names
}

// dup is a descriptor for another process. File would do the same and make the
// socket blocking, which is shared: our own Accept would then hang.
func dup(ln net.Listener) (int, error) {
	tl, ok := ln.(*net.TCPListener)
	if !ok {
		return 0, errors.New("no TCP listener")
	}
	raw, err := tl.SyscallConn()
	if err != nil {
		return 0, err
	}
	var fd int
	var failed error
	if err := raw.Control(func(s uintptr) { fd, failed = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return 0, err
	}
	return fd, failed
}
