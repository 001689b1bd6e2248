package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"starttlsd/bench/load"
)

// settings are the flags of a run.
type settings struct {
	options      load.Options
	json, report string
}

// tlsFlags are those that make the client's tls.Config.
type tlsFlags struct {
	version, groups, ca, sni, cert, key string
	insecure                            bool
}

func readFlags(args []string, stderr io.Writer) (*settings, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	s, t := new(settings), new(tlsFlags)
	o := &s.options
	target := flags.String("target", "", "server, `SCHEME://HOST:PORT`; smtps for implicit TLS")
	mode := flags.String("mode", "", "what to do: upgrade (default), hold, chat, mail, storm or transfer; chat and storm\n"+
		"need a server that allows many commands without mail (junk_commands in starttlsd)")
	hold := flags.Int("hold", 0, "hold so many connections; short for -mode hold -connections `N`")
	flags.IntVar(&o.Connections, "connections", 0, "`N` at a time (default 64; 1024 with a rate of upgrades)")
	flags.Int64Var(&o.Operations, "operations", 0, "end after `N` upgrades, commands or messages (default 5000, without -duration and -rate)")
	flags.Int64Var(&o.Operations, "upgrades", 0, "the same as -operations")
	flags.Float64Var(&o.Rate, "rate", 0, "begin `N` operations a second, whatever the server does, and count latency from when\n"+
		"each was due; -connections bounds how many are in flight (default 0: closed loop)")
	flags.DurationVar(&o.Duration, "duration", 0, "end after this time (default 30s; 10m with -operations); of the idling in a hold, of the\nflood in a storm, with up to 5 s before and behind it")
	flags.DurationVar(&o.Timeout, "timeout", 0, "of one operation (default 10s)")
	flags.DurationVar(&o.Pause, "pause", 0, "chat: between a reply and the next command")
	flags.IntVar(&o.Size, "size", 0, "mail, -upload: of a message or file (default 4096); transfer: of the one that is there (default any);\n"+
		"hold: send a record of so many `bytes` each way first")
	flags.StringVar(&o.File, "file", "", "transfer: `name` of the file (ftp; default load.bin); with -upload a number for each connection is behind it")
	flags.StringVar(&o.User, "user", "", "transfer, hold, chat: log in as this `user` (imap, pop3, sieve, ftp); what is held then waits in IDLE (imap)")
	flags.StringVar(&o.Password, "password", "", "of -user")
	flags.BoolVar(&o.Upload, "upload", false, "transfer: append a message instead of fetching the first one of INBOX (imap), or store a file (ftp)")
	flags.IntVar(&o.Sessions, "sessions", 0, "storm: `N` established sessions are measured (default 50)")
	flags.StringVar(&o.From, "from", "", "mail: `sender` (default load@example.org)")
	flags.StringVar(&o.To, "to", "", "mail: `recipient` (default drop@example.org)")
	flags.BoolVar(&o.Quiet, "quiet", false, "hold: leave the server alone, where otherwise an upgrade a second shows that it still serves")
	flags.BoolVar(&o.Plain, "plain", false, "hold, chat, mail, transfer: without TLS")
	flags.BoolVar(&o.Resume, "resume", false, "resume TLS sessions")
	flags.IntVar(&o.PID, "pid", 0, "process of the server: measure the CPU time and memory of it and all below it (Linux)")
	flags.StringVar(&t.version, "tls", "", "1.2 or 1.3 only (default either)")
	flags.StringVar(&t.groups, "groups", "", "key exchange `groups` offered, with commas between: "+groupNames())
	flags.StringVar(&t.ca, "ca", "", "PEM `file` with the authorities to trust (default the system's; for a\nloopback target the certificate is not verified)")
	flags.BoolVar(&t.insecure, "insecure", false, "do not verify the certificate")
	flags.StringVar(&t.sni, "sni", "", "server `name` to ask for and to verify (default the target's host)")
	flags.StringVar(&t.cert, "cert", "", "PEM `file` with the client certificate")
	flags.StringVar(&t.key, "key", "", "PEM `file` with its key")
	flags.StringVar(&s.json, "json", "", "write the result to this `file`; - is standard output")
	flags.StringVar(&s.report, "report", "", "write a page with plots to this `directory`")
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	o.Mode, o.Sources = load.Mode(*mode), true
	if *hold != 0 {
		if o.Mode != "" && o.Mode != load.Hold || o.Connections != 0 {
			return nil, errors.New("-hold does not go with another -mode or with -connections")
		}
		o.Mode, o.Connections = load.Hold, *hold
	}
	if *target == "" {
		return nil, errors.New("-target is missing, such as smtp://127.0.0.1:2525")
	}
	var err error
	if o.Target, err = load.ParseTarget(*target); err != nil {
		return nil, err
	}
	o.TLS, err = t.config(o.Target)
	return s, err
}

var groups = map[string]tls.CurveID{
	"X25519MLKEM768": tls.X25519MLKEM768,
	"X25519":         tls.X25519,
	"P-256":          tls.CurveP256,
	"P-384":          tls.CurveP384,
	"P-521":          tls.CurveP521,
}

func groupNames() string { return strings.Join(slices.Sorted(maps.Keys(groups)), ", ") }

func (t *tlsFlags) config(target load.Target) (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.sni,
		InsecureSkipVerify: t.insecure || t.ca == "" && target.Loopback(),
	}
	switch t.version {
	case "":
	case "1.2":
		cfg.MaxVersion = tls.VersionTLS12
	case "1.3":
		cfg.MinVersion = tls.VersionTLS13
	default:
		return nil, fmt.Errorf("-tls is %q; use 1.2 or 1.3", t.version)
	}
	if t.groups != "" {
		for name := range strings.SplitSeq(t.groups, ",") {
			group, ok := groups[strings.TrimSpace(name)]
			if !ok {
				return nil, fmt.Errorf("-groups: unknown group %q; use %s", name, groupNames())
			}
			cfg.CurvePreferences = append(cfg.CurvePreferences, group)
		}
	}
	return cfg, t.files(cfg)
}

// files reads what the flags name.
func (t *tlsFlags) files(cfg *tls.Config) error {
	if t.ca != "" {
		if t.insecure {
			return errors.New("-ca and -insecure contradict each other")
		}
		text, err := os.ReadFile(t.ca)
		if err != nil {
			return fmt.Errorf("-ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("-ca: no certificate in %s", t.ca)
		}
	}
	switch {
	case (t.cert == "") != (t.key == ""):
		return errors.New("-cert and -key go together")
	case t.cert != "":
		pair, err := tls.LoadX509KeyPair(t.cert, t.key)
		if err != nil {
			return fmt.Errorf("-cert and -key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return nil
}
