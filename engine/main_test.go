package engine

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails on leaked goroutines; gnet's worker pool is its own for good.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, gnetPool...)
}

var gnetPool = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
	goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
	goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"),
}
