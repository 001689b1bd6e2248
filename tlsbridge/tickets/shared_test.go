package tickets

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var seed = flag.Uint64("seed", 0, "of the only random schedule to run; 0 for several")

// node starts one on a ledger.
func node(t testing.TB, l ledger, skew time.Duration, log *slog.Logger) *Ring {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := open(Options{Rotate: rotation, Now: skewed(skew), Log: log}, newShared(l, pollInterval(rotation)))
	t.Cleanup(r.Close)
	return r
}

// twoPolls is the most that two of them take: nodes do not poll in step.
const twoPolls = 2*maxPoll*11/10 + time.Second

// pass lets time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// mustShare fails the test unless all nodes open each other's new tickets.
func mustShare(t *testing.T, when string, nodes ...*Ring) {
	t.Helper()
	for i, a := range nodes {
		for j, b := range nodes {
			if !opens(a, b) {
				t.Errorf("%s: node %d does not open the tickets of node %d", when, j, i)
			}
		}
	}
}

func TestNodesThatStartTogetherAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		var nodes []*Ring
		for i := range 5 {
			nodes = append(nodes, node(t, m, time.Duration(i-2)*15*time.Second, nil))
		}
		mustShare(t, "at once", nodes...)
		pass(10*rotation + rotation/2)
		mustShare(t, "later", nodes...)
		for _, r := range nodes {
			if s := r.Status(); !s.Shared || s.Err != nil || s.Store != "redis" || s.Generation != s.Due || len(r.snapshot()) != past+2 {
				t.Errorf("status: %+v, %d secrets", s, len(r.snapshot()))
			}
		}
	})
}

func TestSessionsResumeCrosswiseThroughTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		here, there := serve(node(t, m, 0, nil), "smtp"), serve(node(t, m, 0, nil), "smtp")
		client := newClient(tls.VersionTLS13)
		connect(t, client, here)
		for after := range 5 {
			if got, want := connect(t, client, there).DidResume, after <= 2; got != want {
				t.Errorf("after %d rotations: resumed = %v, want %v", after, got, want)
			}
			pass(rotation)
		}
	})
}

func TestAnOutageKeepsTheLastSharedKeyAndIsToldOfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		log, output := logged()
		one, two := node(t, m, 0, log), node(t, m, 20*time.Second, nil)
		pass(rotation)
		m.set(true)
		pass(20 * rotation)
		mustShare(t, "after twenty rotations without the ledger", one, two)
		if s := one.Status(); s.Err == nil || s.Generation >= s.Due {
			t.Errorf("status: %+v", s)
		}
		if warnings := output(); strings.Count(warnings, "level=WARN") != 2 || strings.Count(warnings, "DO NOT ROTATE") != 1 {
			t.Errorf("log: %s", warnings)
		}
		m.set(false)
		for range 2 * rotation / time.Second {
			pass(time.Second)
			mustShare(t, "after the outage", one, two)
		}
		if s := one.Status(); s.Err != nil || s.Generation != s.Due {
			t.Errorf("status: %+v", s)
		}
		if n := strings.Count(output(), "level=INFO"); n != 2 {
			t.Errorf("%d lines that it is over, want 2: %s", n, output())
		}
	})
}

func TestASecretThatOthersMayNotHaveIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		one := node(t, m, 0, nil)
		other := &cut{memory: m}
		two := node(t, other, 0, nil)
		pass(time.Until(one.Status().Next) - time.Second)
		other.cut.Store(true) // two sees nothing of the generation after the next
		pass(5 * time.Second)
		one.Reload()
		pass(0)
		m.set(true)
		other.cut.Store(false)
		pass(3 * rotation)
		mustShare(t, "in the outage", one, two)
	})
}

// cut is a memory that one node may be cut off from.
type cut struct {
	*memory
	cut atomic.Bool
}

func (c *cut) read(ctx context.Context, first, last int64) (map[int64][]secret, error) {
	if c.cut.Load() {
		return nil, errAway
	}
	return c.memory.read(ctx, first, last)
}

func (c *cut) write(ctx context.Context, g int64, proposed secret, also []secret) error {
	if c.cut.Load() {
		return errAway
	}
	return c.memory.write(ctx, g, proposed, also)
}

func TestLostDataComesBackFromTheNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		one, two := node(t, m, 0, nil), node(t, m, 0, nil)
		cfg := serve(one, "smtp")
		client := newClient(tls.VersionTLS13)
		connect(t, client, cfg)
		pass(rotation)
		before := one.snapshot()
		m.lose()
		pass(3 * maxPoll)
		mustShare(t, "after the loss", one, two)
		fresh := node(t, m, 0, nil)
		mustShare(t, "with a node that came later", one, two, fresh)
		if after := fresh.snapshot(); after[0] != before[0] {
			t.Error("the current secret was replaced")
		}
		if !connect(t, client, serve(fresh, "smtp")).DidResume {
			t.Error("a session from before the loss does not resume on a new node")
		}
	})
}

func TestAClockThatIsSetDoesNotEndAgreement(t *testing.T) {
	for _, down := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory()
			var by atomic.Int64
			wrong := open(Options{
				Rotate: rotation, Log: slog.New(slog.DiscardHandler),
				Now: func() time.Time { return time.Now().Add(time.Duration(by.Load())) },
			}, newShared(m, maxPoll))
			t.Cleanup(wrong.Close)
			right := node(t, m, 0, nil)
			for range 2 * maxGenerations { // so many generations are only known while it is never there for long
				by.Add(int64(rotation))
				pass(twoPolls)
				m.set(true)
				pass(twoPolls)
				m.set(false)
			}
			m.set(down)
			by.Store(0)
			pass(twoPolls)
			m.set(false)
			pass(10 * maxPoll)
			mustShare(t, "with the right time again", wrong, right)
			if s := wrong.Status(); s.Generation != s.Due {
				t.Errorf("status: %+v", s)
			}
		})
	}
}

func TestANodeThatStartsAloneJoinsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		one := node(t, m, 0, nil)
		pass(rotation)
		m.set(true)
		log, output := logged()
		alone := node(t, m, 0, log)
		cfg := serve(alone, "smtp")
		client := newClient(tls.VersionTLS13)
		connect(t, client, cfg)
		if !connect(t, client, cfg).DidResume {
			t.Error("on its own it does not resume its sessions")
		}
		if s := alone.Status(); s.Shared || s.Err == nil || !strings.Contains(output(), "level=WARN") {
			t.Errorf("status: %+v, log: %s", s, output())
		}
		m.set(false)
		pass(twoPolls)
		mustShare(t, "two polls after the outage", one, alone)
		if !connect(t, client, serve(one, "smtp")).DidResume {
			t.Error("a session begun in the outage does not resume on another node")
		}
		pass(rotation)
		if one.snapshot()[0] != alone.snapshot()[0] {
			t.Error("each makes tickets with its own secret")
		}
	})
}

// fleet is nodes on one ledger, and what may be expected of them.
type fleet struct {
	t       *testing.T
	rnd     *rand.Rand
	ledger  *memory
	nodes   [5]*Ring
	links   [5]*cut
	trusted [5]bool   // had its keys from a ledger that had not lost anything
	sound   time.Time // since when the ledger is there and has all
}

func (f *fleet) start(i int) {
	f.links[i] = &cut{memory: f.ledger}
	f.nodes[i] = node(f.t, f.links[i], time.Duration(f.rnd.IntN(61)-30)*time.Second, nil)
	f.trusted[i] = f.settled()
}

// settled reports whether all nodes have had the time to learn what is in the ledger.
func (f *fleet) settled() bool {
	return !f.ledger.down && time.Since(f.sound) >= 6*maxPoll
}

// check compares all nodes every few seconds for so long.
func (f *fleet) check(d time.Duration) {
	const step = 5 * time.Second
	for ; d > 0; d -= step {
		pass(min(d, step))
		for i := range f.nodes {
			f.trusted[i] = f.trusted[i] || f.settled()
		}
		for i, a := range f.nodes {
			for j, b := range f.nodes {
				if f.trusted[i] && f.trusted[j] && !opens(a, b) {
					f.t.Fatalf("%v: node %d (%+v) does not open the tickets of node %d (%+v)",
						time.Now(), j, b.Status(), i, a.Status())
				}
			}
		}
	}
}

// span is a random time of at least least, mostly short.
func (f *fleet) span(least, most time.Duration) time.Duration {
	return least + time.Duration(float64(most-least)*f.rnd.Float64()*f.rnd.Float64()*f.rnd.Float64())
}

// event has something happen to the fleet.
func (f *fleet) event() {
	i := f.rnd.IntN(len(f.nodes))
	switch f.rnd.IntN(5) {
	case 0, 1: // an outage, in which data may be lost
		f.ledger.set(true)
		f.check(f.span(time.Second, 5*rotation))
		if f.rnd.IntN(2) == 0 {
			f.ledger.lose()
		}
		if f.rnd.IntN(3) == 0 {
			f.nodes[i].Close()
			f.start(i)
			f.check(f.span(time.Second, 2*rotation))
		}
		f.ledger.set(false)
		f.sound = time.Now()
	case 2:
		f.ledger.lose()
		f.sound = time.Now()
	case 3: // a restart
		f.nodes[i].Close()
		f.check(f.span(time.Second, rotation))
		f.start(i)
	case 4: // one node is cut off for a time that the lead of a generation covers
		f.check(5 * maxPoll)
		f.links[i].cut.Store(true)
		f.check(f.span(time.Second, rotation/2))
		f.links[i].cut.Store(false)
		f.check(5 * maxPoll)
	}
	f.check(f.span(5*maxPoll, 3*rotation))
}

func TestEveryNodeOpensTheTicketsOfEveryOtherWhateverHappens(t *testing.T) {
	seeds := []uint64{*seed}
	if *seed == 0 {
		seeds = nil
		for range 8 {
			seeds = append(seeds, rand.Uint64())
		}
	}
	for _, s := range seeds {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fleet{t: t, rnd: rand.New(rand.NewPCG(s, s)), ledger: newMemory()}
				for i := range f.nodes {
					f.start(i)
					f.trusted[i] = true
				}
				for range 20 {
					f.event()
				}
				f.check(2 * rotation)
				for i, r := range f.nodes {
					if s := r.Status(); s.Err != nil || s.Generation != s.Due || !s.Shared {
						t.Errorf("node %d in the end: %+v", i, s)
					}
				}
			})
		})
	}
}
