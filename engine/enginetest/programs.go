package enginetest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Full reports whether every program has to be there and every test has to run.
func Full() bool { return os.Getenv("STARTTLSD_INTEROP") == "1" }

// Need skips the test unless all programs are installed; when Full it fails.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			Unavailable(t, program+" is not installed")
		}
	}
}

// NeedRoot is Need for the right to start servers that change their user.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Unavailable(t, "only root can start this server")
	}
}

// Unavailable skips the test, or fails it when Full.
func Unavailable(t testing.TB, why string) {
	t.Helper()
	if Full() {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Program runs one to its end, a minute at most, with input on its standard input.
// It returns what was printed.
func Program(t testing.TB, input string, argv ...string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out), err
}

// Daemon starts a server that stays in the foreground, as a group of processes that
// ends with the test, and returns what reads its output so far.
func Daemon(t testing.TB, argv ...string) (output func() string) {
	t.Helper()
	out := new(lines)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(5 * time.Second):
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left of it
		<-exited
		if t.Failed() {
			t.Logf("output of %s:\n%s", argv[0], tail(out.String(), 50))
		}
	})
	return out.String
}

// ports counts those that FreePort has tried, from anywhere: packages are tested at the
// same time.
var ports = func() *atomic.Uint32 {
	n := new(atomic.Uint32)
	n.Store(rand.Uint32N(12_000))
	return n
}()

// FreePort is one on loopback that nobody listens on at the moment, nor gets for an
// outgoing connection: it lies below the range of those. None is returned twice, so that
// a server may need several.
func FreePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20_000 + int(ports.Add(1)%12_000))
		if ln, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			_ = ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// Listens waits until somebody listens on a port of loopback.
func Listens(t testing.TB, port string) {
	t.Helper()
	Eventually(t, "a server on port "+port, func() bool {
		nc, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = nc.Close()
		}
		return err == nil
	})
}

// Fill writes the text into a file below dir, in which the values of the pairs stand
// for their names.
func Fill(t testing.TB, dir, name, text string, pairs ...string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, bytes.TrimLeft([]byte(strings.NewReplacer(pairs...).Replace(text)), "\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// OpenDir is a directory that every user may look into, which t.TempDir is not.
func OpenDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "starttlsd-interop")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
