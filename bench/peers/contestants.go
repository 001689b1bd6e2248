package peers

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// contestant is a server that can be started.
type contestant struct {
	name  string
	title string // how its makers write it
	start func(context.Context, *lab) (*Server, error)
}

// own is the contestant that the others are compared with.
const own = "starttlsd"

// floor is no server: see Floor.
const floor = "floor"

var contestants = []contestant{
	{own, "starttlsd", startOwn},
	{"goroutine", "a goroutine a connection", startGoroutine},
	{"nginx", "nginx", startNginx},
	{"stunnel", "stunnel", startStunnel},
	{"postfix", "Postfix", startPostfix},
	{"dovecot", "Dovecot", startDovecot},
}

func titleOf(name string) string {
	i := slices.IndexFunc(contestants, func(c contestant) bool { return c.name == name })
	if i < 0 {
		return "crypto/tls alone" // the floor
	}
	return contestants[i].title
}

// The limits are out of the way of the loads, and no line is logged for a
// connection: neither the baseline nor nginx logs one.
const ownConfig = `hostname: {{.Hostname}}
tls:
  certificates:
    - {cert: "{{.Cert}}", key: "{{.Key}}"}
listeners:
  - {address: "{{.Addr}}", protocol: smtp, backend: "maildir:{{.Dir}}/maildir"}
limits: {command: 1h, data_stall: 1h, junk_commands: 1048576, messages: 1048576}
drain: 1s
log: {level: warn}
`

func startOwn(ctx context.Context, l *lab) (*Server, error) {
	program, err := l.starttlsd()
	if err != nil {
		return nil, err
	}
	version, err := say(ctx, program, "-version")
	if err != nil {
		return nil, err
	}
	s, err := l.settle(own)
	if err != nil {
		return nil, err
	}
	srv := s.server(own, strings.TrimPrefix(version, "starttlsd "))
	conf, err := s.write("starttlsd.yaml", ownConfig)
	if err != nil {
		srv.Stop()
		return nil, err
	}
	return s.foreground(ctx, srv, program, "-config", conf)
}

func startGoroutine(ctx context.Context, l *lab) (*Server, error) {
	return startBaseline(ctx, l, "goroutine")
}

func startBaseline(ctx context.Context, l *lab, name string) (*Server, error) {
	program, err := l.bench()
	if err != nil {
		return nil, err
	}
	s, err := l.settle(name)
	if err != nil {
		return nil, err
	}
	maildir := s.Dir + "/maildir"
	if err := os.Mkdir(maildir, 0o755); err != nil {
		return nil, err
	}
	return s.foreground(ctx, s.server(name, runtime.Version()), program,
		"baseline", "-address", s.Addr, "-cert", s.Cert, "-key", s.Key, "-maildir", maildir)
}

// stunnel answers EHLO and STARTTLS itself, but takes the greeting and all that
// follows from a server behind it. That is the baseline here, whose CPU time and
// memory are not counted.
const stunnelConfig = `foreground = yes
pid =
debug = err
[smtp]
accept = {{.Addr}}
connect = {{.Backend}}
protocol = smtp
cert = {{.Cert}}
key = {{.Key}}
curves = X25519
sslVersionMin = TLSv1.2
TIMEOUTbusy = 3600
TIMEOUTidle = 3600
`

func startStunnel(ctx context.Context, l *lab) (*Server, error) {
	program, err := find("stunnel")
	if err != nil {
		return nil, err
	}
	version, err := say(ctx, program, "-version")
	if err != nil {
		return nil, err
	}
	backend, err := startBaseline(ctx, l, "backend")
	if err != nil {
		return nil, err
	}
	s, err := l.settle("stunnel")
	if err != nil {
		backend.Stop()
		return nil, err
	}
	s.Backend = backend.Addr
	srv := s.server("stunnel", wordAfter(version, "stunnel")+", with the goroutine server behind it")
	srv.tidy = append(srv.tidy, backend.Stop)
	conf, err := s.write("stunnel.conf", stunnelConfig)
	if err != nil {
		srv.Stop()
		return nil, err
	}
	return s.foreground(ctx, srv, program, conf)
}

// wordAfter is what follows a word in what a program says of itself.
func wordAfter(text, word string) string {
	_, rest, _ := strings.Cut(text, word+" ")
	if fields := strings.Fields(rest); len(fields) > 0 {
		return fields[0]
	}
	return "unknown"
}

// start starts the contestant of that name.
func start(ctx context.Context, l *lab, name string) (*Server, error) {
	for _, c := range contestants {
		if c.name == name {
			return c.start(ctx, l)
		}
	}
	return nil, fmt.Errorf("there is no contestant %q", name)
}
