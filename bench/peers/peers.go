// Package peers runs the same load against starttlsd and other servers with
// STARTTLS that are installed here, and compares what it takes them.
//
//	go run ./bench peers -results bench/results
//
// Each server runs on loopback with a generated configuration, the same
// certificate, TLS 1.3 and X25519, and logs no line for a connection where it can
// be told so. Servers take turns, round by round, so that what else the machine
// does meets all of them. Server and client share its cores: the CPU time and the
// memory are the server's alone, but times and rates depend on the client too.
package peers

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are the flags.
type options struct {
	rounds      int
	upgrades    int
	connections int // idle
	settle      time.Duration
	chatters    int
	chat        time.Duration
	messages    int
	storm       time.Duration
	nice        int
	capacity    int
	hold        time.Duration
	loads       string
	servers     string
	results     string
	quick       bool
	starttlsd   string
}

const allLoads = "upgrade,idle,record,storm,chat,mail,capacity"

// quick are the values of flags in a quick run.
var quick = map[string]string{
	"rounds": "2", "upgrades": "200", "connections": "200", "settle": "1s", "chatters": "100", "chat": "1s",
	"messages": "100", "storm": "2s", "capacity": "1000", "hold": "2s",
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := new(options)
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // an error is told by the caller
	flags.IntVar(&o.rounds, "rounds", 5, "how often each server has its turn")
	flags.IntVar(&o.upgrades, "upgrades", 3000, "upgrades of a turn")
	flags.IntVar(&o.connections, "connections", 6000, "idle connections to a server")
	flags.DurationVar(&o.settle, "settle", 30*time.Second, "from the last idle connection to the measurement")
	flags.IntVar(&o.chatters, "chatters", 1000, "sessions that chat")
	flags.DurationVar(&o.chat, "chat", 5*time.Second, "how long they chat")
	flags.IntVar(&o.messages, "messages", 3000, "messages of a turn")
	flags.DurationVar(&o.storm, "storm", 8*time.Second, "how long a storm lasts")
	flags.IntVar(&o.nice, "nice", 19, "priority of the storm's clients; 0: that of the sessions that are measured")
	flags.IntVar(&o.capacity, "capacity", 18_000, "connections to one starttlsd")
	flags.DurationVar(&o.hold, "hold", time.Minute, "how long they are held")
	flags.StringVar(&o.loads, "loads", allLoads, "what to run")
	flags.StringVar(&o.servers, "servers", strings.Join(allServers(), ","), "what to compare")
	flags.StringVar(&o.starttlsd, "starttlsd", "", "`FILE` that is measured as starttlsd, instead of one built from the module")
	flags.StringVar(&o.results, "results", "", "`DIR` for results.json, results.txt, benchstat.txt and plots; without it they are only printed")
	flags.BoolVar(&o.quick, "quick", false, "a pass of a minute and a half, to see that all of it works")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(stderr)
			flags.PrintDefaults()
		}
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.quick {
		given := make(map[string]bool)
		flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range quick {
			if !given[name] {
				_ = flags.Set(name, value)
			}
		}
	}
	return o, o.check()
}

func (o *options) check() error {
	for _, n := range []int{o.rounds, o.upgrades, o.connections, o.chatters, o.messages, o.capacity} {
		if n < 1 {
			return errors.New("a number is out of range: use positive ones")
		}
	}
	for _, list := range []struct{ what, given, known string }{
		{"load", o.loads, allLoads}, {"server", o.servers, strings.Join(allServers(), ",")},
	} {
		for name := range strings.SplitSeq(list.given, ",") {
			if !has(list.known, name) {
				return fmt.Errorf("unknown %s %q; use %s", list.what, name, list.known)
			}
		}
	}
	return nil
}

// has reports whether name is in a list with commas.
func has(list, name string) bool { return slices.Contains(strings.Split(list, ","), name) }

func allServers() []string {
	var names []string
	for _, c := range contestants {
		names = append(names, c.name)
	}
	return append(names, floor)
}

// Main is the command. It returns flag.ErrHelp when it was asked for its flags.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	l, err := newLab(ctx, o.starttlsd)
	if err != nil {
		return err
	}
	defer l.close()
	r := &Results{Header: header(args, o.quick)}
	b := &bout{options: o, lab: l, res: r, log: stderr}
	err = b.run(ctx)
	r.summarise()
	fmt.Fprint(stdout, Text(r))
	if o.results != "" && len(r.Figures) > 0 {
		err = errors.Join(err, writeResults(r, o.results))
	}
	return err
}

// writeResults writes all forms of them into dir.
func writeResults(r *Results, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := r.save(filepath.Join(dir, "results.json")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.txt"), []byte(Text(r)), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "benchstat.txt"), []byte(Benchstat(r)), 0o644); err != nil {
		return err
	}
	return r.plot(dir, "svg")
}

func header(args []string, quick bool) Header {
	h := Header{
		Command:     strings.Join(append([]string{"go run ./bench peers"}, args...), " "),
		Date:        time.Now().UTC().Truncate(time.Second),
		CPU:         "unknown CPU",
		Cores:       runtime.NumCPU(),
		Kernel:      runtime.GOOS,
		Go:          runtime.Version(),
		Descriptors: descriptors(),
		Quick:       quick,
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	text, _ := os.ReadFile("/proc/cpuinfo")
	if _, rest, ok := strings.Cut(string(text), "model name\t: "); ok {
		h.CPU, _, _ = strings.Cut(rest, "\n")
	}
	return h
}
