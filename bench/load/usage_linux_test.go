package load

import (
	"os"
	"os/exec"
	"strconv"
	"testing"

	"starttlsd/tlsbridge/tlstest"
)

func TestServerIsMeasuredWithItsChildren(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 60 & echo; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() {
		for _, pid := range (&meter{pid: cmd.Process.Pid}).tree() {
			_ = exec.Command("kill", "-9", strconv.Itoa(pid)).Run()
		}
		_ = cmd.Wait()
	}()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	addr := serve(t, tlstest.ServerConfig(), false, &store{})
	res := mustRun(t, Options{Target: target(t, "smtp", addr), Operations: 1, PID: cmd.Process.Pid})
	if u := res.Server; u == nil || u.Processes != 2 || u.PSSBefore == 0 || u.PSSAfter == 0 {
		t.Errorf("%+v", u)
	}
}

func TestTimeOfChildrenThatHaveEndedCounts(t *testing.T) {
	m, err := newMeter(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	m.start()
	busy := exec.Command("sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
	if err := busy.Run(); err != nil {
		t.Skip(err)
	}
	m.stop()
	took := busy.ProcessState.UserTime() + busy.ProcessState.SystemTime()
	if m.report.CPU < took-3*tick {
		t.Errorf("%v are measured, and a child alone took %v", m.report.CPU, took)
	}
}

func TestWhatIsBehindTheServerIsMeasuredApart(t *testing.T) {
	addr := serve(t, tlstest.ServerConfig(), false, &store{})
	res := mustRun(t, Options{Target: target(t, "smtp", addr), Operations: 1, PID: os.Getpid(), Behind: os.Getppid()})
	if res.Server == nil || res.Behind == nil || res.Server == res.Behind {
		t.Errorf("%+v, %+v", res.Server, res.Behind)
	}
}

// A process for each session would else lose a tick with each.
func TestTimeIsFinerThanATick(t *testing.T) {
	if threadTime(os.Getpid()) == 0 {
		t.Skip("the kernel does not tell")
	}
	m := &meter{pid: os.Getpid()}
	for range 3 { // one may be whole ticks
		if sum, ok := m.cpu(m.pid); ok && sum%tick != 0 {
			return
		}
	}
	t.Error("the time is in whole ticks")
}
