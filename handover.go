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

// successor starts this program again, as the file is now, with the listening
// sockets, and returns when it serves. Nobody is refused meanwhile: the sockets are
// both processes' until this one closes them. On an error there is no other process.
func successor(program string, args []string, listening []socket) (pid int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
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
			return 0, fmt.Errorf("socket of %s: %w", s.address, err)
		}
		lines = append(lines, fmt.Sprintf("%d=%s", len(files), s.address))
		files = append(files, uintptr(fd))
	}
	env := append(os.Environ(), inheritEnv+"="+strings.Join(lines, "\n"), readyEnv+"=3")
	pid, err = syscall.ForkExec(program, args, &syscall.ProcAttr{Env: env, Files: files})
	if err != nil {
		return 0, fmt.Errorf("starting %s: %w", program, err)
	}
	_ = w.Close() // the other end is the successor's alone
	p, _ := os.FindProcess(pid)
	_ = r.SetReadDeadline(time.Now().Add(startTime))
	if _, err = io.ReadFull(r, make([]byte, 1)); err == nil {
		go func() { _, _ = p.Wait() }()
		return pid, nil
	}
	_ = p.Kill()
	state, _ := p.Wait()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("the new process did not serve within %v", startTime)
	}
	return 0, fmt.Errorf("the new process did not start, see above: %v", state)
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
