package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"starttlsd/backend"
	"starttlsd/bench/baseline"
	"starttlsd/bench/load"
	"starttlsd/bench/stub"
	"starttlsd/codec"
	"starttlsd/codec/imap"
	"starttlsd/codec/smtp"
	"starttlsd/config"
	"starttlsd/engine"
)

// These make the test binary a server: a benchmark's server is a process of its
// own, so that CPU time and memory are the server's alone.
const (
	serverEnv  = "STARTTLSD_BENCH_SERVER"  // a name of servers
	maildirEnv = "STARTTLSD_BENCH_MAILDIR" // where messages go; empty: nowhere
	backendEnv = "STARTTLSD_BENCH_BACKEND" // HOST:PORT of the IMAP server that it is a relay for; empty: none
)

func TestMain(m *testing.M) {
	if name := os.Getenv(serverEnv); name != "" {
		if err := beServer(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	m.Run()
}

// service is what every server is given: the same sessions, the same TLS.
type service struct {
	listener net.Listener
	tls      *tls.Config
	session  func(*codec.Peer) codec.Session
	backend  string        // as backendEnv
	command  time.Duration // for one complete command
	log      *slog.Logger
}

var servers = map[string]func(*service) error{
	"loop":      (*service).loop,
	"goroutine": (*service).goroutine,
}

// serverNames is in the order of the results.
var serverNames = []string{"loop", "goroutine"}

// beServer says its address and serves, until its standard input is closed: it
// does not outlive the benchmark. Each line it is sent has it come to rest and
// answer how many goroutines it then has.
func beServer(name string) error {
	cfg := config.Default()
	cfg.Log.Level = "warn" // no line for a connection: the baseline has none
	logger := cfg.Log.Open(io.Discard)
	defer logger.Flush()
	log := logger.Logger
	certs, err := cfg.BuildTLS(log, time.Now)
	if err != nil {
		return err
	}
	messages := smtp.Backend(discard{})
	if dir := os.Getenv(maildirEnv); dir != "" {
		if messages, err = backend.OpenMaildir(dir); err != nil {
			return err
		}
	}
	lc := net.ListenConfig{KeepAlive: -1} // as main
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &service{ln, certs.ServerConfig("smtp"), sessions(messages), os.Getenv(backendEnv), cfg.Limits.Command, log}
	if err := servers[name](s); err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		debug.FreeOSMemory()
		debug.FreeOSMemory() // pools let go at the second
		fmt.Println(runtime.NumGoroutine())
	}
	return nil
}

// loop is starttlsd's engine, as main has it.
func (s *service) loop() error {
	l := engine.Listener{
		Listener:   s.listener,
		Name:       "bench",
		TLS:        s.tls,
		NewSession: s.session,
		Limits:     engine.Limits{Command: s.command},
	}
	if s.backend != "" {
		if err := s.relay(&l); err != nil {
			return err
		}
	}
	_, err := engine.New(engine.Config{Listeners: []engine.Listener{l}, Log: s.log, TuneMemory: true})
	return err
}

// relay has l relay IMAP.
func (s *service) relay(l *engine.Listener) error {
	address, err := backend.ParseAddress("tcp://" + s.backend)
	if err != nil {
		return err
	}
	server, err := backend.NewServer(backend.Options{Address: address})
	if err != nil {
		return err
	}
	cfg := &imap.Config{Hostname: "bench.example", TLS: true}
	l.NewSession = func(p *codec.Peer) codec.Session { return imap.New(cfg, p) }
	l.Dial = func(ctx context.Context, sess codec.Relayed, c *codec.Client) (engine.Upstream, error) {
		conn, err := server.Dial(ctx, sess, c)
		if err != nil {
			return engine.Upstream{}, err
		}
		return engine.Upstream{TCP: conn.TCP, TLS: conn.TLS, Ahead: conn.Ahead}, nil
	}
	return nil
}

// goroutine is one a connection.
func (s *service) goroutine() error {
	b := &baseline.Server{TLS: s.tls, NewSession: s.session, Backend: s.backend, Timeout: s.command}
	go func() { _ = b.Serve(s.listener) }()
	return nil
}

// sessions are not bounded by what a client of theirs may do.
func sessions(messages smtp.Backend) func(*codec.Peer) codec.Session {
	cfg := &smtp.Config{Hostname: "bench.example", TLS: true, Backend: messages,
		Limits: smtp.Limits{JunkCommands: math.MaxInt32, Messages: math.MaxInt32}}
	return func(p *codec.Peer) codec.Session { return smtp.New(cfg, p) }
}

// server is one in a process of its own.
type server struct {
	pid    int
	target load.Target
	in     io.WriteCloser
	out    *bufio.Reader
}

// launch runs the server of that name until b is over. Messages go to
// maildir, or nowhere when that is empty.
func launch(b *testing.B, name, maildir string) *server {
	b.Helper()
	return launchAs(b, name, "smtp", maildirEnv+"="+maildir)
}

// launchRelay is launch, for a relay in front of a stub whose message has size bytes.
// The stub is in this process, as the clients are.
func launchRelay(b *testing.B, name string, size int) *server {
	b.Helper()
	behind, err := stub.New(size)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(behind.Close)
	return launchAs(b, name, "imap", backendEnv+"="+behind.Addr())
}

func launchAs(b *testing.B, name, scheme, env string) *server {
	b.Helper()
	if runtime.GOOS != "linux" {
		b.Skip("CPU time and memory of the server are read from /proc, which needs Linux")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverEnv+"="+name, env)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error("the server: ", err)
		}
	})
	s := &server{pid: cmd.Process.Pid, in: in, out: bufio.NewReader(out)}
	addr, err := s.out.ReadString('\n')
	if err != nil {
		b.Fatal("the server does not listen: ", err)
	}
	if s.target, err = load.ParseTarget(scheme + "://" + strings.TrimSpace(addr)); err != nil {
		b.Fatal(err)
	}
	return s
}

// rest has the server give back the memory that it does not use.
func (s *server) rest() (goroutines int, err error) {
	if _, err := io.WriteString(s.in, "\n"); err != nil {
		return 0, err
	}
	_, err = fmt.Fscanln(s.out, &goroutines)
	return goroutines, err
}

// run measures s under a load, in which nothing may fail.
func (s *server) run(b *testing.B, o load.Options) *load.Result {
	b.Helper()
	o.Target, o.PID, o.Sources = s.target, s.pid, true
	res, err := load.Run(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	if n := res.Failed(); n > 0 {
		b.Errorf("%d errors: %v, such as %v", n, res.Errors, res.Examples)
	}
	return res
}
