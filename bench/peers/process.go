package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Server is a contestant that runs.
type Server struct {
	Name    string
	Version string
	Addr    string // on loopback, where it offers STARTTLS
	PID     int    // the root of its processes, and their group

	once sync.Once
	tidy []func() // run by Stop, the last one first
}

// Stop ends its processes and removes its files.
func (s *Server) Stop() {
	s.once.Do(func() {
		endGroup(s.PID)
		for i := len(s.tidy) - 1; i >= 0; i-- {
			s.tidy[i]()
		}
	})
}

// output is the file in a server's directory that has its log.
const output = "output"

// launch starts a program that stays in the foreground, with its log in dir. Its
// processes are a group of their own, so that a ^C ends them in our order.
func launch(dir string, argv ...string) (pid int, exited <-chan struct{}, err error) {
	log, err := os.Create(filepath.Join(dir, output))
	if err != nil {
		return 0, nil, err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	return cmd.Process.Pid, ended, nil
}

const (
	startTime = 20 * time.Second // until a server greets
	stopTime  = 5 * time.Second  // until it is killed
	pollTime  = 10 * time.Millisecond
)

// endGroup ends the process group that leader leads, by force if it must.
func endGroup(leader int) {
	if leader <= 1 {
		return // never started, and -1 would be everyone
	}
	_ = syscall.Kill(leader, syscall.SIGTERM)
	if !groupGone(leader) {
		_ = syscall.Kill(-leader, syscall.SIGKILL)
		groupGone(leader)
	}
}

func groupGone(leader int) bool {
	for end := time.Now().Add(stopTime); time.Now().Before(end); time.Sleep(pollTime) {
		if errors.Is(syscall.Kill(-leader, 0), syscall.ESRCH) {
			return true
		}
	}
	return false
}

// greets waits for a 220 at addr, until exited.
func greets(ctx context.Context, addr string, exited <-chan struct{}) error {
	err := errors.New("it does not listen")
	for end := time.Now().Add(startTime); time.Now().Before(end); {
		if err = greeting(addr); err == nil {
			return nil
		}
		select {
		case <-exited:
			return errors.New("it has ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollTime):
		}
	}
	return err
}

func greeting(addr string) error {
	nc, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 512)
	n, err := nc.Read(buf)
	if err != nil {
		return err
	}
	if text := string(buf[:n]); !strings.HasPrefix(text, "220 ") && !strings.HasPrefix(text, "* OK") {
		return fmt.Errorf("its greeting is %q", buf[:n])
	}
	_, err = fmt.Fprint(nc, "QUIT\r\n")
	if err == nil {
		_, _ = nc.Read(buf) // so that it does not log a lost connection
	}
	return err
}

// freeAddr is a loopback address nobody listens on. For the moment: another
// program may be faster, and the server then fails to start.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// lastLines is the end of a server's log on one line, for an error.
func lastLines(dir string) string {
	text, _ := os.ReadFile(filepath.Join(dir, output))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}

// errMissing is wrapped by the error about a program that is not installed.
var errMissing = errors.New("not installed")

// find looks for a program also where an ordinary user's PATH does not.
func find(name string) (string, error) {
	for _, dir := range []string{"", "/usr/sbin/", "/usr/local/sbin/", "/usr/local/bin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is %w", name, errMissing)
}

// say is what a program that ends soon prints, to either stream.
func say(ctx context.Context, argv ...string) (string, error) {
	return sayIn(ctx, "", startTime, argv...)
}

func sayIn(ctx context.Context, dir string, limit time.Duration, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", argv[0], err, text)
	}
	return text, nil
}
