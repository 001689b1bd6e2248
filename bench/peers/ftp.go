package peers

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"starttlsd/bench/load"
)

// FTPMain is the command that compares starttlsd in front of a plaintext vsftpd with
// vsftpd's own TLS. CPU time and memory are those of starttlsd alone, of both
// together, and of vsftpd with all the processes of its sessions.
func FTPMain(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := ftpOptions{}
	flags := flag.NewFlagSet("ftp", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 5, "how often each server has its turn")
	flags.IntVar(&o.mib, "mib", 1024, "MiB that go across in a turn, each way; uploads need as many in TMPDIR")
	flags.IntVar(&o.idle, "idle", 2000, "idle sessions of a turn, each of which takes vsftpd some 0.7 MB")
	flags.DurationVar(&o.settle, "settle", 10*time.Second, "from the last idle session to the measurement")
	quick := flags.Bool("quick", false, "a pass of a few seconds, to see that all of it works")
	file := flags.String("starttlsd", "", "`FILE` that is measured as starttlsd, instead of one built from the module")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *quick {
		o.rounds, o.mib, o.idle, o.settle = 1, 64, 50, time.Second
	}
	if o.rounds < 1 || o.mib < 1 || o.mib > 64<<10 || o.idle < 1 || flags.NArg() > 0 {
		return errors.New("a number is out of range, or an argument is not a flag: see -h")
	}
	if _, err := find("vsftpd"); err != nil {
		fmt.Fprintf(stderr, "nothing is compared: %v\n", err)
		return nil
	}
	l, err := newLab(ctx, *file)
	if err != nil {
		return err
	}
	defer l.close()
	return o.run(ctx, l, stdout, stderr)
}

type ftpOptions struct {
	rounds, mib, idle int
	settle            time.Duration
}

// ftpServer is a contestant that runs.
type ftpServer struct {
	*Server
	behind int // PID of the server behind it; 0: there is none
	curve  tls.CurveID
}

const (
	vsftpd = "vsftpd"
	both   = "starttlsd and vsftpd"
)

// ftpContestant is one that can be started.
type ftpContestant struct {
	name  string
	start func(ctx context.Context, l *lab, files string) (*ftpServer, error)
}

var ftpContestants = []ftpContestant{
	{own, startOwnFTP},
	{vsftpd, startSecureVsftpd},
}

const ownFTPConfig = `hostname: {{.Hostname}}
tls:
  certificates:
    - {cert: "{{.Cert}}", key: "{{.Key}}"}
listeners:
  - {address: "{{.Addr}}", protocol: ftp, backend: "tcp://{{.Backend}}"}
drain: 1s
log: {level: warn}
`

func startOwnFTP(ctx context.Context, l *lab, files string) (*ftpServer, error) {
	program, err := l.starttlsd()
	if err != nil {
		return nil, err
	}
	backend, err := startVsftpd(ctx, l, files, false)
	if err != nil {
		return nil, err
	}
	srv, err := l.relay(ctx, own, backend.Addr, "starttlsd.yaml", ownFTPConfig, nil, program, "-config")
	if err != nil {
		backend.Stop()
		return nil, err
	}
	srv.tidy = append(srv.tidy, backend.Stop)
	return &ftpServer{srv, backend.PID, tls.X25519}, nil
}

func startSecureVsftpd(ctx context.Context, l *lab, files string) (*ftpServer, error) {
	srv, err := startVsftpd(ctx, l, files, true)
	return &ftpServer{Server: srv, curve: tls.CurveP256}, err
}

// ftpWay is a way in which files go across.
type ftpWay struct {
	what   string
	width  int
	upload bool
}

const (
	fileDownOne, fileDownMany = "download, 1 connection", "download, 8 connections"
	fileUpOne, fileUpMany     = "upload, 1 connection", "upload, 8 connections"
	idleSession               = "idle session"
)

var ftpWays = []ftpWay{
	{fileDownOne, 1, false}, {fileDownMany, 8, false}, {fileUpOne, 1, true}, {fileUpMany, 8, true},
}

// fileSize is of the file that each connection transfers.
func (o *ftpOptions) fileSize(way ftpWay) int { return o.mib << 20 / way.width }

// fileName is of the one that is there for so many connections.
func fileName(width int) string { return fmt.Sprintf("load.%d", width) }

// ftpFigures are by contestant: starttlsd alone, both, vsftpd.
type ftpFigures struct {
	cpu, rate map[string]figures
	tls       map[string]string
}

func (o *ftpOptions) run(ctx context.Context, l *lab, stdout, stderr io.Writer) error {
	files := filepath.Join(l.dir, "files")
	sizes := make(map[string]int)
	for _, way := range ftpWays {
		sizes[fileName(way.width)] = o.fileSize(way)
	}
	if err := makeFiles(files, sizes); err != nil {
		return err
	}
	f := &ftpFigures{
		cpu:  map[string]figures{own: {}, both: {}, vsftpd: {}},
		rate: map[string]figures{both: {}, vsftpd: {}},
		tls:  make(map[string]string),
	}
	var present []ftpContestant
	for _, c := range ftpContestants {
		srv, err := c.start(ctx, l, files)
		if err != nil {
			fmt.Fprintf(stderr, "%s is left out: %v\n", c.name, err)
			continue
		}
		srv.Stop()
		present = append(present, c)
	}
	for round := range o.rounds {
		for _, c := range present {
			fmt.Fprintf(stderr, "round %d: %s\n", round+1, c.name)
			if err := o.turn(ctx, l, c, files, f); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return o.print(stdout, f)
}

// turn measures one server, which is started for it, and anew for its idle sessions.
func (o *ftpOptions) turn(ctx context.Context, l *lab, c ftpContestant, files string, f *ftpFigures) error {
	srv, err := c.start(ctx, l, files)
	if err != nil {
		return err
	}
	defer srv.Stop()
	for _, way := range ftpWays {
		lo := load.Options{Mode: load.Transfer, Connections: way.width, Operations: int64(way.width), Size: o.fileSize(way),
			Upload: way.upload, File: fileName(way.width)}
		if way.upload {
			lo.File = uploads + "/" + lo.File
		}
		res, err := srv.load(ctx, lo)
		if err = errors.Join(err, removeUploads(files)); err != nil {
			return fmt.Errorf("%s: %w", way.what, err)
		}
		f.tls[srv.Name] = res.TLS
		f.add(srv, way.what, res.PerGiB().Seconds(), res.PerGiBBehind().Seconds())
		rate := f.rate[srv.rated()]
		rate[way.what] = append(rate[way.what], res.ByteRate()/(1<<20))
	}
	srv.Stop()
	if srv, err = c.start(ctx, l, files); err != nil {
		return err
	}
	defer srv.Stop()
	time.Sleep(o.settle)
	res, err := srv.load(ctx, load.Options{Mode: load.Hold, Quiet: true, Connections: o.idle, Duration: o.settle})
	if err != nil {
		return fmt.Errorf("%s: %w", idleSession, err)
	}
	f.add(srv, idleSession, float64(res.PerConnection())/1000, float64(res.PerConnectionBehind())/1000)
	return nil
}

// load runs one against it, as an anonymous client.
func (srv *ftpServer) load(ctx context.Context, o load.Options) (*load.Result, error) {
	o.TLS = clientTLS()
	o.TLS.CurvePreferences = []tls.CurveID{srv.curve}
	o.User, o.Password, o.Timeout, o.Behind = "anonymous", "load@example.org", filePatience, srv.behind
	return across(ctx, "ftp", srv.Server, o)
}

// rated is what its rates are those of.
func (srv *ftpServer) rated() string {
	if srv.behind != 0 {
		return both
	}
	return srv.Name
}

// add takes a sample of what a server took, and what the one behind it did.
func (f *ftpFigures) add(srv *ftpServer, what string, alone, behind float64) {
	to := f.cpu[srv.Name]
	to[what] = append(to[what], alone)
	if srv.behind != 0 {
		to = f.cpu[both]
		to[what] = append(to[what], alone+behind)
	}
}

// print writes a table of medians, and in brackets what starttlsd and vsftpd take
// together by what vsftpd takes with its own TLS.
func (o *ftpOptions) print(w io.Writer, f *ftpFigures) error {
	fmt.Fprintf(w, "Medians of %d interleaved rounds, %s; %d MiB, in a file for each connection\n", o.rounds, time.Now().Format(time.DateOnly), o.mib)
	for _, c := range ftpContestants {
		if said := f.tls[c.name]; said != "" {
			fmt.Fprintf(w, "%s: %s\n", c.name, said)
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\n\tstarttlsd alone\tstarttlsd and vsftpd\tvsftpd's own TLS\n")
	row := func(what, unit string, of map[string]figures) {
		fmt.Fprint(t, what+", "+unit)
		for _, name := range []string{own, both, vsftpd} {
			fmt.Fprint(t, "\t"+ftpCell(of, name, what))
		}
		fmt.Fprintln(t)
	}
	for _, way := range ftpWays {
		row(way.what, "CPU s/GiB", f.cpu)
		row(way.what, "MiB/s", f.rate)
	}
	row(idleSession, "KB", f.cpu)
	return t.Flush()
}

func ftpCell(of map[string]figures, name, what string) string {
	samples := of[name][what]
	if len(samples) == 0 {
		return "–"
	}
	m := median(samples)
	cell := fmt.Sprintf("%.4g", m)
	if together := of[both][what]; name == vsftpd && len(together) > 0 {
		cell += fmt.Sprintf(" (× %.2f)", median(together)/m)
	}
	return cell
}

// filePatience is how long one file may take.
const filePatience = 5 * time.Minute
