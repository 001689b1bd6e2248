package backend

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childEnv makes the test binary deliver into the Maildir it names until it is killed.
const childEnv = "STARTTLSD_TEST_MAILDIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		fmt.Fprintln(os.Stderr, deliverForever(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, // gnet, which tlsbridge knows, keeps a pool of workers
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
	)
}
