// Package enginetest runs the starttlsd command for tests of the whole program.
//
//	p := enginetest.Start(t, enginetest.Config{YAML: "listeners: …"})
//	client, err := enginetest.Dial(p.Addrs[0])
//
// The command is built once a test process, from the module that the test is in.
// A test fails when the command has logged an error or crashed.
package enginetest

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Config says how to start the command.
type Config struct {
	YAML    string         // the configuration; use port 0, the real addresses are in Process.Addrs. Empty: no file
	Dir     string         // working directory; default a temporary one
	Env     []string       // added to the environment
	Wrapper []string       // put before the command, such as prlimit and its arguments
	Files   []*os.File     // descriptors from 3 on
	Expect  *regexp.Regexp // errors that the command is to log
}

// Process is a running starttlsd. It is ended with the test.
type Process struct {
	Addrs []string // of the listeners, in the order of the configuration
	Dir   string

	tb     testing.TB
	cmd    *exec.Cmd
	file   string // of the configuration
	pid    int    // of the process that has the listeners
	log    lines
	exited chan struct{}
	status int
}

// Binary builds the command and returns its path.
func Binary(tb testing.TB) string {
	tb.Helper()
	path, err := build()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

var binary struct {
	sync.Mutex
	path string
}

func build() (string, error) {
	binary.Lock()
	defer binary.Unlock()
	if binary.path != "" {
		return binary.path, nil
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("go list -m: %w", err)
	}
	dir, err := os.MkdirTemp("", "starttlsd-test")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "starttlsd")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = strings.TrimSpace(string(root))
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	binary.path = path
	return path, nil
}

// RemoveBinary deletes what Binary built, if it did. Call it at the end of
// TestMain, or of a test: the next one that needs the command builds it again.
func RemoveBinary() {
	binary.Lock()
	defer binary.Unlock()
	if binary.path != "" {
		_ = os.RemoveAll(filepath.Dir(binary.path))
		binary.path = ""
	}
}

// In either format of the log.
var (
	listening = regexp.MustCompile(`"?msg"?[=:]"?listening"?[ ,]"?address"?[=:]"?([^"\s]+)`)
	trouble   = regexp.MustCompile(`(?m)^.*(level=ERROR|"level":"ERROR").*$|^(panic|fatal error): .*$|^WARNING: DATA RACE$`)
)

// Start runs the command and returns when it listens.
func Start(tb testing.TB, c Config) *Process {
	tb.Helper()
	p := &Process{tb: tb, Dir: c.Dir, exited: make(chan struct{})}
	if p.Dir == "" {
		p.Dir = tb.TempDir()
	}
	args := append(append([]string(nil), c.Wrapper...), Binary(tb))
	want := 3 // of the default configuration
	if c.YAML != "" {
		p.file = WriteFile(tb, "starttlsd.yaml", c.YAML)
		args = append(args, "-config", p.file)
		want = strings.Count(c.YAML, "address:")
	}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Dir = p.Dir
	p.cmd.Env = append(os.Environ(), c.Env...)
	p.cmd.Stderr = &p.log
	p.cmd.ExtraFiles = c.Files
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	p.pid = p.cmd.Process.Pid
	go func() {
		_ = p.cmd.Wait()
		p.status = p.cmd.ProcessState.ExitCode()
		close(p.exited)
	}()
	tb.Cleanup(func() {
		p.Kill()
		for _, found := range trouble.FindAllString(p.Log(), -1) {
			if c.Expect == nil || !c.Expect.MatchString(found) {
				tb.Errorf("starttlsd is in trouble: %s", found)
			}
		}
		if tb.Failed() {
			tb.Logf("log of starttlsd:\n%s", tail(p.Log(), 100))
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		found := listening.FindAllStringSubmatch(p.Log(), -1)
		if len(found) == want && want > 0 {
			for _, m := range found {
				p.Addrs = append(p.Addrs, m[1])
			}
			return p
		}
		select {
		case <-p.exited:
			tb.Fatalf("starttlsd did not start: %s", p.Log())
		default:
		}
		if time.Now().After(end) {
			tb.Fatalf("starttlsd does not listen: %s", p.Log())
		}
	}
}

// WriteFile makes a file in a new directory and returns its path.
func WriteFile(tb testing.TB, name, content string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// Exited is closed when the process has ended, and those that it has handed over to.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// PID is the process's id, of the one that has the listeners.
func (p *Process) PID() int { return p.pid }

var handed = regexp.MustCompile(`msg="?handed over"? to=(\d+)`)

// HandOver has the process start its successor, and returns when that serves. Signals
// are the successor's from then on.
func (p *Process) HandOver() {
	p.tb.Helper()
	before := len(handed.FindAllString(p.Log(), -1))
	p.Signal(syscall.SIGUSR2)
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if all := handed.FindAllStringSubmatch(p.Log(), -1); len(all) > before {
			p.pid, _ = strconv.Atoi(all[len(all)-1][1])
			return
		}
		if time.Now().After(end) {
			p.tb.Fatal("starttlsd did not hand over")
		}
	}
}

// ConfigFile is the path of the configuration.
func (p *Process) ConfigFile() string { return p.file }

// Reload gives the process another configuration and waits until that is in force,
// or, if it is not to be, refused.
func (p *Process) Reload(yaml string) {
	p.tb.Helper()
	const done, failed = `msg=reloaded`, `msg="RELOAD FAILED`
	count := func() int { return strings.Count(p.Log(), done) + strings.Count(p.Log(), failed) }
	before := count()
	if err := os.WriteFile(p.file, []byte(yaml), 0o600); err != nil {
		p.tb.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	Eventually(p.tb, "the reload", func() bool { return count() > before })
}

// Log is all that was logged so far.
func (p *Process) Log() string { return p.log.String() }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) { _ = syscall.Kill(p.pid, s) }

// Kill ends the process at once, as kill -9 does.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	if p.pid != p.cmd.Process.Pid {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
	<-p.exited
}

// Stop sends SIGTERM and returns the exit status.
func (p *Process) Stop() int {
	p.tb.Helper()
	p.Signal(syscall.SIGTERM)
	return p.Wait()
}

// Wait waits for the end and returns the exit status.
func (p *Process) Wait() int {
	p.tb.Helper()
	select {
	case <-p.exited:
		return p.status
	case <-time.After(time.Minute):
		p.tb.Fatal("starttlsd does not end")
		return -1
	}
}

// Maildir returns the messages delivered into dir, by file name.
func Maildir(tb testing.TB, dir string) map[string][]byte {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "new", "*"))
	if err != nil {
		tb.Fatal(err)
	}
	messages := make(map[string][]byte, len(names))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		messages[filepath.Base(name)] = b
	}
	return messages
}

// Content is a stored message without the trace header that starttlsd put on it.
func Content(message []byte) []byte {
	rest := message
	for trace := 0; trace < 2; trace++ { // Return-Path and Received, which may be folded
		_, after, ok := bytes.Cut(rest, []byte("\r\n"))
		for ok && len(after) > 0 && (after[0] == ' ' || after[0] == '\t') {
			_, after, ok = bytes.Cut(after, []byte("\r\n"))
		}
		rest = after
	}
	return rest
}

// tail is the last n lines of s.
func tail(s string, n int) string {
	var last []string
	for sc := bufio.NewScanner(strings.NewReader(s)); sc.Scan(); {
		if last = append(last, sc.Text()); len(last) > n {
			last = last[1:]
		}
	}
	return strings.Join(last, "\n")
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
