package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"

	"starttlsd/bench/stub"
)

// serveStub is the subcommand: it serves until ctx is done.
func serveStub(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench stub", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:2143", "`HOST:PORT` to listen on; port 0: any free one")
	size := flags.Int("size", 1<<20, "`bytes` of its one message")
	if err := parse(flags, args); err != nil {
		return err
	}
	const most = 1 << 30 // in memory
	if *size < 1 || *size > most {
		return errors.New("-size: use 1 to 1073741824 bytes")
	}
	lc := net.ListenConfig{KeepAlive: -1} // as starttlsd
	ln, err := lc.Listen(ctx, "tcp", *listen)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", *listen, err)
	}
	s := stub.Serve(ln, *size)
	fmt.Fprintln(stdout, "listening on "+s.Addr())
	<-ctx.Done()
	s.Close()
	return nil
}
