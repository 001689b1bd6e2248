package tlsbridge_test

import (
	"context"
	"net"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"
)

// run serves handler on a free port until stop is called.
func run(handler gnet.EventHandler, engine <-chan gnet.Engine) (address string, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // gnet cannot tell which port it got
	if err != nil {
		panic(err)
	}
	address = l.Addr().String()
	_ = l.Close()
	ended := make(chan error, 1)
	go func() {
		ended <- gnet.Run(handler, "tcp://"+address, gnet.WithNumEventLoop(1), gnet.WithLogLevel(logging.ErrorLevel))
	}()
	select {
	case err := <-ended:
		panic(err)
	case e := <-engine:
		return address, func() {
			_ = e.Stop(context.Background())
			<-ended
		}
	}
}
