package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// readyEnv names the descriptor on which a process tells the one that has started
// it that it serves.
const readyEnv = "STARTTLSD_READY"

// startTime is how long the next process may take to serve.
const startTime = time.Minute

// successor is the process that is to serve next.
type successor struct {
	pid    int
	served chan error // one value: nil when it serves, else there is no such process any more
}

// startSuccessor starts this program again, as the file is now, with the listening
// sockets. Nobody is refused meanwhile: they are both processes' until this one closes
// its own.
func startSuccessor(program string, args []string, listening []socket) (*successor, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	files := []uintptr{0, 1, 2, w.Fd()}
	var lines []string
	defer func() {
		for _, fd := range files[4:] {
			_ = unix.Close(int(fd))
		}
	}()
	for _, s := range listening {
		fd, err := dup(s.Listener)
		if err != nil {
			_ = r.Close()
			return nil, fmt.Errorf("socket of %s: %w", s.address, err)
		}
		lines = append(lines, fmt.Sprintf("%d=%s", len(files), s.address))
		files = append(files, uintptr(fd))
	}
	env := append(os.Environ(), inheritEnv+"="+strings.Join(lines, "\n"), readyEnv+"=3")
	pid, err := syscall.ForkExec(program, args, &syscall.ProcAttr{Env: env, Files: files})
	if err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	s := &successor{pid: pid, served: make(chan error, 1)}
	go s.await(r)
	return s, nil
}

func (s *successor) kill() { _ = syscall.Kill(s.pid, syscall.SIGKILL) }

// await waits for the word that it serves, and then for its end, so that it is no zombie.
func (s *successor) await(r *os.File) {
	defer r.Close()
	p, _ := os.FindProcess(s.pid)
	_ = r.SetReadDeadline(time.Now().Add(startTime))
	_, err := io.ReadFull(r, make([]byte, 1))
	if err == nil {
		s.served <- nil
		_, _ = p.Wait()
		return
	}
	s.kill()
	state, _ := p.Wait()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.served <- fmt.Errorf("the new process did not serve within %v", startTime)
		return
	}
	s.served <- fmt.Errorf("the new process did not start, see above: %v", state)
}

// tellReady tells who has started us, and systemd, that we serve.
func tellReady() {
	_, _ = sd.SdNotify(false, sd.SdNotifyReady)
	fd, err := strconv.Atoi(os.Getenv(readyEnv))
	_ = os.Unsetenv(readyEnv)
	if err != nil || fd < 3 {
		return
	}
	f := os.NewFile(uintptr(fd), "ready")
	_, _ = f.Write([]byte{1})
	_ = f.Close()
}

// ownProgram is the path under which the program will be started again. It is
// resolved at the start, so that a new file in its place is what is found.
func ownProgram() string {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		path, _ = os.Executable()
	}
	return path
}
