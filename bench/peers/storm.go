package peers

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"starttlsd/bench/load"
)

const (
	stormSessions = 50
	stormClients  = "256"
	stormPause    = 10 * time.Millisecond
)

// stormLoad measures sessions while another process floods the server. That one
// has the lowest priority: it is to be the server that makes the sessions wait,
// and not the client on the same cores.
func (b *bout) stormLoad(ctx context.Context) error {
	servers, stop := b.start(ctx, own, "goroutine", "nginx")
	defer stop()
	b.turns(ctx, "storm", servers, func(ctx context.Context, s *Server) (string, error) {
		program, err := b.lab.bench()
		if err != nil {
			return "", err
		}
		f := &flooding{program: program, addr: s.Addr, nice: b.nice}
		r, err := b.measure(ctx, s, load.Options{
			// An open loop: a server that stands still does not get fewer commands for it.
			Mode: load.Chat, Connections: stormSessions, Duration: b.storm, Rate: stormSessions / stormPause.Seconds(),
			Progress: func(int64, int64) { f.start.Do(f.begin) }, // they are established
		})
		perSecond, floodErr := f.end()
		if err == nil {
			err = floodErr
		}
		if err != nil {
			return "", err
		}
		p99, longest := r.Latency.Percentile(99), r.Latency.Max()
		b.res.add("storm-p99", s.Name, float64(p99))
		b.res.add("storm-max", s.Name, float64(longest))
		b.res.add("storm-rate", s.Name, perSecond)
		return fmt.Sprintf("p99 %s, longest %s, %.0f upgrades/s", formatDuration(p99), formatDuration(longest), perSecond), nil
	})
	return nil
}

// flooding is the process that floods.
type flooding struct {
	program, addr string
	nice          int
	start         sync.Once

	cmd       *exec.Cmd
	out, said bytes.Buffer
	err       error
}

func (f *flooding) begin() {
	f.cmd = exec.Command("nice", "-n", strconv.Itoa(f.nice), f.program, "-target", "smtp://"+f.addr, "-mode", "upgrade",
		"-connections", stormClients, "-duration", "10m", "-timeout", "1m", "-tls", "1.3", "-groups", "X25519", "-json", "-")
	f.cmd.Stdout, f.cmd.Stderr = &f.out, &f.said
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	f.err = f.cmd.Start()
}

// end is how many upgrades the flood had a second.
func (f *flooding) end() (perSecond float64, err error) {
	f.start.Do(func() { f.err = errors.New("the sessions were over before the storm") })
	if f.err != nil {
		return 0, f.err
	}
	_ = f.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(stopTime, func() { _ = f.cmd.Process.Kill() })
	defer kill.Stop()
	ended := f.cmd.Wait()
	r := new(load.Result)
	if err := json.Unmarshal(f.out.Bytes(), r); err != nil {
		return 0, fmt.Errorf("the flood: %w: %s", cmp.Or(ended, err), &f.said)
	}
	if r.Failed() > 0 {
		return 0, fmt.Errorf("the flood: %d done, failed: %v, such as %v", r.Done, r.Errors, r.Examples)
	}
	return r.Throughput(), nil
}
