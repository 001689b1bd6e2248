package peers

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"starttlsd/bench/load"
	"starttlsd/bench/stub"
)

// RelayMain is the command that compares relays: IMAP with STARTTLS in front of a
// stub that is in this process, as the clients are. CPU time and memory are those of
// the relays alone.
func RelayMain(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := relayOptions{}
	flags := flag.NewFlagSet("relay", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 5, "how often each relay has its turn")
	flags.IntVar(&o.mib, "mib", 1024, "MiB that go across in a turn, each way")
	flags.IntVar(&o.message, "message", 1024, "KiB of one message")
	flags.IntVar(&o.idle, "idle", 2000, "idle pairs of a turn")
	flags.DurationVar(&o.settle, "settle", 30*time.Second, "from the last idle pair to the measurement")
	quick := flags.Bool("quick", false, "a pass of half a minute, to see that all of it works")
	file := flags.String("starttlsd", "", "`FILE` that is measured as starttlsd, instead of one built from the module")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *quick {
		o.rounds, o.mib, o.idle, o.settle = 1, 64, 200, time.Second
	}
	if o.rounds < 1 || o.mib < 1 || o.message < 1 || o.idle < 1 || flags.NArg() > 0 {
		return errors.New("a number is out of range, or an argument is not a flag: see -h")
	}
	l, err := newLab(ctx, *file)
	if err != nil {
		return err
	}
	defer l.close()
	return o.run(ctx, l, stdout, stderr)
}

type relayOptions struct {
	rounds, mib, message, idle int
	settle                     time.Duration
}

// relays are the contestants. The configurations are filled in with settings, whose
// Backend is the stub.
var relays = []struct {
	name  string
	start func(ctx context.Context, l *lab, backend string) (*Server, error)
}{
	{own, startOwnRelay},
	{"nginx", startNginxRelay},
	{"stunnel", startStunnelRelay},
}

const ownRelayConfig = `hostname: {{.Hostname}}
tls:
  certificates:
    - {cert: "{{.Cert}}", key: "{{.Key}}"}
listeners:
  - {address: "{{.Addr}}", protocol: imap, backend: "tcp://{{.Backend}}"}
drain: 1s
log: {level: warn}
`

const nginxRelayConfig = `{{if .Module}}load_module {{.Module}};
{{end}}daemon off;
worker_processes auto;
worker_rlimit_nofile {{.Descriptors}};
pid {{.Dir}}/pid;
error_log stderr error;
events { worker_connections 8192; }
mail {
    server_name {{.Hostname}};
    auth_http {{.Auth}};
    ssl_certificate {{.Cert}};
    ssl_certificate_key {{.Key}};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ecdh_curve X25519;
    timeout 1h;
    server {
        listen {{.Addr}};
        protocol imap;
        starttls on;
    }
}
`

const stunnelRelayConfig = `foreground = yes
pid =
debug = err
[imap]
accept = {{.Addr}}
connect = {{.Backend}}
protocol = imap
cert = {{.Cert}}
key = {{.Key}}
curves = X25519
sslVersionMin = TLSv1.2
TIMEOUTbusy = 3600
TIMEOUTidle = 3600
`

func startOwnRelay(ctx context.Context, l *lab, backend string) (*Server, error) {
	program, err := l.starttlsd()
	if err != nil {
		return nil, err
	}
	return l.relay(ctx, own, backend, "starttlsd.yaml", ownRelayConfig, nil, program, "-config")
}

func startNginxRelay(ctx context.Context, l *lab, backend string) (*Server, error) {
	program, err := find("nginx")
	if err != nil {
		return nil, err
	}
	about, err := say(ctx, program, "-V")
	if err != nil {
		return nil, err
	}
	module, err := nginxModule(about)
	if err != nil {
		return nil, err
	}
	// nginx asks over HTTP where a client that has logged in belongs.
	host, port, _ := net.SplitHostPort(backend)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	auth := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Auth-Status", "OK")
		w.Header().Set("Auth-Server", host)
		w.Header().Set("Auth-Port", port)
	})}
	go func() { _ = auth.Serve(ln) }()
	srv, err := l.relay(ctx, "nginx", backend, "nginx.conf", nginxRelayConfig, func(s *settings) {
		s.Module, s.Auth = module, ln.Addr().String()
	}, program, "-e", "stderr", "-c")
	if err != nil {
		_ = auth.Close()
		return nil, err
	}
	srv.tidy = append(srv.tidy, func() { _ = auth.Close() })
	return srv, nil
}

func startStunnelRelay(ctx context.Context, l *lab, backend string) (*Server, error) {
	program, err := find("stunnel")
	if err != nil {
		return nil, err
	}
	return l.relay(ctx, "stunnel", backend, "stunnel.conf", stunnelRelayConfig, nil, program)
}

// relay starts a program whose last argument is its configuration file.
func (l *lab) relay(ctx context.Context, name, backend, file, config string, more func(*settings), argv ...string) (*Server, error) {
	s, err := l.settle(name)
	if err != nil {
		return nil, err
	}
	s.Backend = backend
	if more != nil {
		more(s)
	}
	srv := s.server(name, "")
	conf, err := s.write(file, config)
	if err != nil {
		srv.Stop()
		return nil, err
	}
	return s.foreground(ctx, srv, append(argv, conf)...)
}

// figures of a relay, by what they are of.
type figures map[string][]float64

const (
	downOne, downMany = "download, 1 connection", "download, 64 connections"
	upOne, upMany     = "upload, 1 connection", "upload, 64 connections"
	idlePair          = "idle pair"
)

func (o *relayOptions) run(ctx context.Context, l *lab, stdout, stderr io.Writer) error {
	backend, err := stub.New(o.message << 10)
	if err != nil {
		return err
	}
	defer backend.Close()
	cpu, rate := make(map[string]figures), make(map[string]figures)
	var names []string
	for _, c := range relays {
		if srv, err := c.start(ctx, l, backend.Addr()); err != nil {
			fmt.Fprintf(stderr, "%s is left out: %v\n", c.name, err)
		} else {
			srv.Stop()
			names = append(names, c.name)
			cpu[c.name], rate[c.name] = figures{}, figures{}
		}
	}
	for round := range o.rounds {
		for _, c := range relays {
			if cpu[c.name] == nil {
				continue
			}
			fmt.Fprintf(stderr, "round %d: %s\n", round+1, c.name)
			if err := o.turn(ctx, l, c.start, backend.Addr(), cpu[c.name], rate[c.name]); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return o.print(stdout, names, cpu, rate)
}

// turn measures one relay, which is started for it, and anew for its idle pairs.
func (o *relayOptions) turn(ctx context.Context, l *lab, start func(context.Context, *lab, string) (*Server, error),
	backend string, cpu, rate figures) error {
	srv, err := start(ctx, l, backend)
	if err != nil {
		return err
	}
	defer srv.Stop()
	for _, way := range []struct {
		what   string
		width  int
		upload bool
	}{
		{downOne, 1, false}, {downMany, 64, false}, {upOne, 1, true}, {upMany, 64, true},
	} {
		messages := max(1, o.mib<<10/o.message/way.width) * way.width
		res, err := relayed(ctx, srv, load.Options{Mode: load.Transfer, Upload: way.upload,
			Connections: way.width, Operations: int64(messages), Size: o.message << 10})
		if err != nil {
			return fmt.Errorf("%s: %w", way.what, err)
		}
		cpu[way.what] = append(cpu[way.what], res.PerGiB().Seconds())
		rate[way.what] = append(rate[way.what], res.ByteRate()/(1<<20))
	}
	srv.Stop()
	if srv, err = start(ctx, l, backend); err != nil {
		return err
	}
	defer srv.Stop()
	time.Sleep(o.settle)
	res, err := relayed(ctx, srv, load.Options{Mode: load.Hold, Quiet: true, Connections: o.idle, Duration: o.settle})
	if err != nil {
		return fmt.Errorf("%s: %w", idlePair, err)
	}
	cpu[idlePair] = append(cpu[idlePair], float64(res.PerConnection())/1000)
	return nil
}

// relayed runs a load through a relay.
func relayed(ctx context.Context, srv *Server, o load.Options) (*load.Result, error) {
	o.User, o.Password, o.Timeout, o.TLS = "u", "p", relayPatience, clientTLS()
	return across(ctx, "imap", srv, o)
}

// across runs a load against a server. Operations that fail are an error.
func across(ctx context.Context, scheme string, srv *Server, o load.Options) (*load.Result, error) {
	target, err := load.ParseTarget(scheme + "://" + srv.Addr)
	if err != nil {
		return nil, err
	}
	o.Target, o.PID, o.Sources = target, srv.PID, true
	res, err := load.Run(ctx, o)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && res.Failed() > 0 {
		err = fmt.Errorf("%d done, failed: %v, such as %v", res.Done, res.Errors, res.Examples)
	}
	return res, err
}

// print writes a table of medians, and in brackets ours by that one.
func (o *relayOptions) print(w io.Writer, names []string, cpu, rate map[string]figures) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "Medians of %d interleaved rounds, %s; messages of %d KiB, TLS 1.3\n\n", o.rounds, time.Now().Format(time.DateOnly), o.message)
	fmt.Fprintln(t, "\t"+strings.Join(names, "\t"))
	row := func(what, unit string, of map[string]figures) {
		ours := median(of[own][what])
		fmt.Fprint(t, what+", "+unit)
		for _, name := range names {
			m := median(of[name][what])
			fmt.Fprintf(t, "\t%.4g", m)
			if name != own {
				fmt.Fprintf(t, " (× %.2f)", ours/m)
			}
		}
		fmt.Fprintln(t)
	}
	for _, what := range []string{downOne, downMany, upOne, upMany} {
		row(what, "CPU s/GiB", cpu)
		row(what, "MiB/s", rate)
	}
	row(idlePair, "KB", cpu)
	return t.Flush()
}

func median(samples []float64) float64 { return spread(samples).Median }

// relayPatience is how long one message may take, with 64 at a time.
const relayPatience = time.Minute
