// Command starttlsd is a STARTTLS front door for text protocols.
//
//	starttlsd [-config FILE] [-check [-dial]] [-print-config] [-version]
//
// Without a file it takes mail on 127.0.0.1:2525 (STARTTLS) and 127.0.0.1:2465
// (implicit TLS) into ./maildir. SIGTERM and SIGINT drain; a second one ends now.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"starttlsd/config"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // sessions were cut off at the end
	exitUsage  = 2 // nothing was started
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("starttlsd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "", "configuration `FILE`; without it, mail on loopback ports into ./maildir")
	check := flags.Bool("check", false, "check the configuration with its certificates, say what would be done, and exit")
	dial := flags.Bool("dial", false, "with -check: connect to each backend as well")
	printConfig := flags.Bool("print-config", false, "print the configuration in force as YAML, and exit")
	version := flags.Bool("version", false, "print the version, and exit")
	flush := func() {}
	defer func() { flush() }()
	fail := func(err error) int {
		flush()
		fmt.Fprintln(stderr, "starttlsd:", err)
		return exitUsage
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case *dial && !*check:
		return fail(errors.New("-dial is for -check; add that"))
	case flags.NArg() > 0:
		return fail(fmt.Errorf("unexpected argument %q; the configuration is given with -config", flags.Arg(0)))
	}
	if *version {
		fmt.Fprintln(stdout, "starttlsd", versionString())
		return exitOK
	}

	cfg := config.Default()
	if *file != "" {
		var err error
		if cfg, err = config.Load(*file); err != nil {
			return fail(err)
		}
	}
	if *printConfig {
		text, err := cfg.YAML()
		if err != nil {
			return fail(err)
		}
		_, _ = stdout.Write(text)
		return exitOK
	}
	log := cfg.Log.Open(stderr)
	flush = log.Flush
	d := &daemon{file: *file, program: ownProgram(), args: append([]string{os.Args[0]}, args...), started: time.Now(), log: log}
	b, err := d.build(cfg, !*check || *dial)
	if err != nil {
		return fail(err)
	}
	if *check {
		defer b.drop(nil)
		if err := b.report(stdout, *dial); err != nil {
			return fail(err)
		}
		return exitOK
	}
	if err := d.run(b, *file == ""); err != nil {
		if errors.Is(err, errCutOff) {
			return exitFailed
		}
		b.drop(nil)
		return fail(err)
	}
	return exitOK
}

func versionString() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value
		}
	}
	return v + " " + info.GoVersion
}
