package tlsbridge

import (
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

var (
	noClient netip.Prefix
	panics   atomic.Int64
)

// unexpectedPanic is the OnPanic of every test that does not provoke one.
func unexpectedPanic(v any, stack []byte) {
	panics.Add(1)
	fmt.Fprintf(os.Stderr, "unexpected panic: %v\n%s", v, stack)
}

// TestMain fails on leaked goroutines and on recovered panics. gnet keeps a pool
// of workers for the life of the process.
func TestMain(m *testing.M) {
	status := m.Run()
	if status == 0 {
		err := goleak.Find(
			goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
			goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
			goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"),
		)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
		if panics.Load() > 0 {
			status = 1
		}
	}
	os.Exit(status)
}
