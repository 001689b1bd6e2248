// Command bench is a load client for servers with STARTTLS.
//
//	bench -target smtp://HOST:PORT [-mode upgrade|hold|chat|mail|storm|transfer] [flags]
//	bench baseline [-address HOST:PORT] [flags]
//	bench stub [-listen HOST:PORT] [-size BYTES]
//	bench peers [flags]
//	bench relay [flags]
//	bench ftp [flags]
//	bench table [-results FILE]
//
// The first measures a server and prints what it took; -json and -report keep it.
// Ctrl-C ends the run, and prints what was measured so far. The second serves the
// sessions of starttlsd the plain way in Go, a goroutine a connection, to be
// measured beside it. The third is an IMAP server to be behind a relay that is
// measured; see package stub. The next three measure other servers, other relays, and
// a file server's own TLS beside starttlsd; see package peers. The last makes the README's table of what
// peers has written.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"starttlsd/bench/load"
	"starttlsd/bench/peers"
	"starttlsd/bench/report"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // operations failed or were missed, or what was measured could not be written
	exitUsage  = 2 // nothing was started
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second one ends the process
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// subcommands run until they are done or ctx is.
var subcommands = map[string]func(ctx context.Context, args []string, stdout, stderr io.Writer) error{
	"baseline": serveBaseline,
	"stub":     serveStub,
	"peers":    comparePeers,
	"relay":    peers.RelayMain,
	"ftp":      peers.FTPMain,
	"table":    peers.TableMain,
}

const usage = `Usage:
  bench -target smtp://HOST:PORT [-mode upgrade|hold|chat|mail|storm|transfer] [flags]
  bench baseline [flags]   serve the plain way in Go, a goroutine a connection
  bench stub [flags]       serve IMAP in clear, to be behind a relay
  bench peers [flags]      measure other servers beside starttlsd
  bench relay [flags]      measure other relays beside starttlsd's
  bench ftp [flags]        measure vsftpd's own TLS beside starttlsd in front of it
  bench table [flags]      print the README's table of what peers has written

Flags of the first:
`

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	command := measure
	if len(args) > 0 && subcommands[args[0]] != nil {
		command, args = subcommands[args[0]], args[1:]
	}
	switch err := command(ctx, args, stdout, stderr); {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errFailed):
		return exitFailed
	case errors.Is(err, errFlags): // the flag package has said why
		return exitUsage
	default:
		fmt.Fprintln(stderr, "bench:", err)
		return exitUsage
	}
}

// comparePeers is peers.Main, whose results are on stdout once it has run: an error
// is then not one of usage.
func comparePeers(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var printed bytes.Buffer
	err := peers.Main(ctx, args, io.MultiWriter(stdout, &printed), stderr)
	if err == nil || printed.Len() == 0 {
		return err
	}
	fmt.Fprintln(stderr, "bench:", err)
	return errFailed
}

var (
	errFailed = errors.New("operations failed")
	errFlags  = errors.New("bad flags")
)

// parse returns flag.ErrHelp or errFlags, or an error that nobody has told yet.
func parse(flags *flag.FlagSet, args []string) error {
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return errFlags
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return nil
}

func measure(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := readFlags(args, stderr)
	if err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	progress, finish := progressBar(stderr)
	s.options.Progress = progress
	res, err := load.Run(ctx, s.options)
	finish()
	if err != nil {
		return err
	}
	if err := s.write(res, stdout); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return errFailed
	}
	if res.Failed() > 0 || res.Missed > 0 {
		return errFailed
	}
	return nil
}

// prepare sees that -json and -report can be written, so that no run is in vain. What
// is there stays until there is a result.
func (s *settings) prepare() error {
	if s.json != "" && s.json != "-" {
		f, err := os.OpenFile(s.json, os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return fmt.Errorf("-json: %w", err)
		}
		_ = f.Close()
	}
	if s.report != "" {
		if err := report.Prepare(s.report); err != nil {
			return fmt.Errorf("-report: %w", err)
		}
	}
	return nil
}

// write puts the result where the flags say. What fails does not keep it from the others.
func (s *settings) write(res *load.Result, stdout io.Writer) error {
	var text, page error
	if s.json != "-" {
		text = report.Text(stdout, res)
	}
	object := s.writeJSON(res, stdout)
	if s.report != "" {
		var name string
		name, page = report.Write(s.report, res)
		if page == nil && s.json != "-" {
			fmt.Fprintln(stdout, "\nreport: "+name)
		}
	}
	return errors.Join(text, object, page)
}

func (s *settings) writeJSON(res *load.Result, stdout io.Writer) error {
	if s.json == "" {
		return nil
	}
	text, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if s.json == "-" {
		_, err = stdout.Write(text)
		return err
	}
	return os.WriteFile(s.json, text, 0o644)
}
