package peers

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"starttlsd/bench/load"
)

// spare descriptors are for all but held connections.
const spare = 500

func (b *bout) idleLoad(ctx context.Context) error {
	// stunnel knows no other command than STARTTLS in plaintext: it cannot be asked
	// whether a connection is still there.
	plain := []string{own, "goroutine", "nginx", "postfix", "dovecot"}
	upgraded := append(slices.Clone(plain), "stunnel")
	return b.held(ctx,
		holding{"idle-plain", plain, load.Options{Plain: true}},
		holding{"idle-upgraded", upgraded, load.Options{}})
}

func (b *bout) recordLoad(ctx context.Context) error {
	return b.held(ctx, holding{"idle-record", []string{own, "goroutine"}, load.Options{Size: 16 << 10}})
}

// holding is a way to hold connections.
type holding struct {
	metric  string
	servers []string
	options load.Options
}

func (b *bout) held(ctx context.Context, ways ...holding) error {
	for round := range b.rounds {
		for _, way := range ways {
			for _, names := range b.batches(way.servers, int(descriptors())-spare) {
				b.holdAll(ctx, round, way, names)
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}
	}
	return nil
}

// heldBy is how many idle connections a server is measured with at most. Those that
// take so much for each that fewer will do leave room for the others.
func heldBy(name string) int {
	switch name {
	case "postfix":
		return postfixSessions
	case "stunnel", "dovecot":
		return 500
	default:
		return math.MaxInt
	}
}

// batches are as many servers at a time as this process may have connections to.
func (b *bout) batches(names []string, room int) (batches [][]string) {
	left := 0
	for _, name := range names {
		if !has(b.servers, name) {
			continue
		}
		n := min(b.connections, heldBy(name))
		if len(batches) == 0 || n > left {
			batches, left = append(batches, nil), room
		}
		last := len(batches) - 1
		batches[last] = append(batches[last], name)
		left -= n
	}
	return batches
}

// holdAll holds connections to several servers at the same time, fresh ones, which
// get theirs one after the other. None is started or ended while another is
// measured, and each has served a few clients before, because they share the pages
// of libraries, and what a server takes once is not to be shared out.
func (b *bout) holdAll(ctx context.Context, round int, way holding, names []string) {
	servers, stop := b.start(ctx, names...)
	defer stop()
	for _, s := range servers {
		if _, err := b.measure(ctx, s, load.Options{Mode: load.Upgrade, Operations: 20, Connections: 2}); err != nil {
			b.res.note(fmt.Sprintf("%s, first ones, %s: %v", way.metric, s.Name, err))
		}
	}
	var running sync.WaitGroup
	grown := make([]float64, len(servers))
	errs := make([]error, len(servers))
	for i, s := range servers {
		full := make(chan struct{})
		var once sync.Once
		opened := func() { once.Do(func() { close(full) }) }
		running.Go(func() {
			defer opened() // also when it was not to be
			grown[i], errs[i] = b.holdOne(ctx, s, way, opened)
		})
		<-full
	}
	running.Wait()
	for i, s := range servers {
		what := fmt.Sprintf("%s %d/%d %s", way.metric, round+1, b.rounds, s.Name)
		if errs[i] != nil {
			fmt.Fprintf(b.log, "%s: failed: %v\n", what, errs[i])
			b.res.note(fmt.Sprintf("%s: %v", what, errs[i]))
			continue
		}
		fmt.Fprintf(b.log, "%s: %s each\n", what, format(grown[i], bytesEach))
		b.res.add(way.metric, s.Name, grown[i])
	}
}

// holdOne is what the memory of s has grown by for each connection.
func (b *bout) holdOne(ctx context.Context, s *Server, way holding, opened func()) (float64, error) {
	o := way.options
	o.Mode, o.Quiet, o.Connections, o.Duration = load.Hold, true, b.connections, b.settle
	o.Connections = min(o.Connections, heldBy(s.Name))
	o.Progress = func(done, _ int64) {
		if done >= int64(o.Connections) {
			opened()
		}
	}
	r, err := b.measure(ctx, s, o)
	if err != nil {
		return 0, err
	}
	if r.Server == nil || r.Server.PSSAfter == 0 {
		return 0, errors.New("its memory cannot be seen")
	}
	return float64(r.Server.PSSAfter-r.Server.PSSBefore) / float64(o.Connections), nil
}
