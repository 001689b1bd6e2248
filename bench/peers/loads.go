package peers

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"time"

	"starttlsd/bench/load"
	"starttlsd/config"
)

// bout is one run of the command.
type bout struct {
	*options
	lab *lab
	res *Results
	log io.Writer
}

func (b *bout) run(ctx context.Context) error {
	for _, l := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"idle", b.idleLoad}, {"record", b.recordLoad}, {"capacity", b.capacityLoad},
		{"upgrade", b.upgradeLoad}, {"chat", b.chatLoad}, {"mail", b.mailLoad}, {"storm", b.stormLoad},
	} {
		if !has(b.loads, l.name) {
			continue
		}
		if err := l.run(ctx); err != nil {
			return fmt.Errorf("load %s: %w", l.name, err)
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// start starts those of the names that were asked for. One that cannot be started
// is left out, from then on, and the results say why.
func (b *bout) start(ctx context.Context, names ...string) (servers []*Server, stop func()) {
	for _, name := range names {
		at := slices.IndexFunc(b.res.Contestants, func(p Participant) bool { return p.Name == name })
		if !has(b.servers, name) || at >= 0 && b.res.Contestants[at].Skipped != "" {
			continue
		}
		s, err := start(ctx, b.lab, name)
		if ctx.Err() != nil {
			if err == nil {
				s.Stop()
			}
			break
		}
		p := Participant{Name: name}
		if err != nil {
			p.Skipped = strings.ReplaceAll(err.Error(), "\n", " | ")
			fmt.Fprintf(b.log, "%s: skipped: %s\n", name, p.Skipped)
		} else {
			p.Version = s.Version
			servers = append(servers, s)
		}
		if at < 0 {
			b.res.Contestants = append(b.res.Contestants, p)
		} else {
			b.res.Contestants[at] = p
		}
	}
	return servers, func() {
		for _, s := range servers {
			s.Stop()
		}
	}
}

// turns has every server measured in every round. An error in one turn is noted
// and costs its sample.
func (b *bout) turns(ctx context.Context, what string, servers []*Server, turn func(context.Context, *Server) (string, error)) {
	for round := range b.rounds {
		for _, s := range servers {
			if ctx.Err() != nil {
				return
			}
			said, err := turn(ctx, s)
			if err != nil {
				said = "failed: " + err.Error()
				b.res.note(fmt.Sprintf("%s, round %d, %s: %v", what, round+1, s.Name, err))
			}
			fmt.Fprintf(b.log, "%s %d/%d %s: %s\n", what, round+1, b.rounds, s.Name, said)
		}
	}
}

// measure runs a load against a server. Operations that fail are an error.
func (b *bout) measure(ctx context.Context, s *Server, o load.Options) (*load.Result, error) {
	target, err := load.ParseTarget("smtp://" + s.Addr)
	if err != nil {
		return nil, err
	}
	o.Target, o.PID, o.TLS, o.Sources = target, s.PID, clientTLS(), true
	res, err := load.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.res.Header.TLS == "" {
		b.res.Header.TLS = res.TLS
	}
	if res.Failed() > 0 || res.Done == 0 {
		return res, fmt.Errorf("%d done, failed: %v, such as %v", res.Done, res.Errors, res.Examples)
	}
	return res, nil
}

// warm is how many upgrades come before those that are measured.
const warm = 100

func (b *bout) upgradeLoad(ctx context.Context) error {
	servers, stop := b.start(ctx, allServers()[:len(contestants)]...)
	defer stop()
	if has(b.servers, floor) {
		// Last, so that it has its turn like the others.
		servers = append(servers, &Server{Name: floor})
		b.res.Contestants = append(b.res.Contestants, Participant{Name: floor, Version: "crypto/tls alone, over memory, " + runtime.Version()})
	}
	cfg, err := b.lab.ownTLS()
	if err != nil {
		return err
	}
	turn := func(n int, keep bool) func(context.Context, *Server) (string, error) {
		return func(ctx context.Context, s *Server) (string, error) {
			if s.Name == floor {
				each, err := Floor(n, cfg, clientTLS())
				if err == nil && keep {
					b.res.add("upgrade-cpu", floor, float64(each))
				}
				return formatDuration(each), err
			}
			r, err := b.measure(ctx, s, load.Options{Mode: load.Upgrade, Operations: int64(n)})
			if err != nil {
				return "", err
			}
			if keep {
				b.res.add("upgrade-cpu", s.Name, float64(r.PerOperation()))
				b.res.add("upgrade-rate", s.Name, r.Throughput())
				b.res.add("upgrade-p99", s.Name, float64(r.Latency.Percentile(99)))
			}
			return fmt.Sprintf("%s CPU, %.0f/s, p99 %s", formatDuration(r.PerOperation()), r.Throughput(),
				formatDuration(r.Latency.Percentile(99))), nil
		}
	}
	for _, s := range servers {
		if _, err := turn(warm, false)(ctx, s); err != nil {
			b.res.note(fmt.Sprintf("upgrade, first ones, %s: %v", s.Name, err))
		}
	}
	b.turns(ctx, "upgrade", servers, turn(b.upgrades, true))
	return nil
}

// ownTLS is the tls.Config of starttlsd.
func (l *lab) ownTLS() (*tls.Config, error) {
	s, err := l.settle(floor)
	if err != nil {
		return nil, err
	}
	file, err := s.write("starttlsd.yaml", ownConfig)
	if err != nil {
		return nil, err
	}
	cfg, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	certs, err := cfg.BuildTLS(slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		return nil, err
	}
	return certs.ServerConfig("smtp"), nil
}

func (b *bout) chatLoad(ctx context.Context) error {
	servers, stop := b.start(ctx, own, "goroutine")
	defer stop()
	b.turns(ctx, "chat", servers, func(ctx context.Context, s *Server) (string, error) {
		r, err := b.measure(ctx, s, load.Options{Mode: load.Chat, Connections: b.chatters, Duration: b.chat})
		if err != nil {
			return "", err
		}
		b.res.add("chat-rate", s.Name, r.Throughput())
		return fmt.Sprintf("%.0f/s, %s CPU", r.Throughput(), formatDuration(r.PerOperation())), nil
	})
	return nil
}

func (b *bout) mailLoad(ctx context.Context) error {
	servers, stop := b.start(ctx, own, "goroutine")
	defer stop()
	b.turns(ctx, "mail", servers, func(ctx context.Context, s *Server) (string, error) {
		r, err := b.measure(ctx, s, load.Options{Mode: load.Mail, Operations: int64(b.messages), Size: 4096})
		if err != nil {
			return "", err
		}
		b.res.add("mail-rate", s.Name, r.Throughput())
		return fmt.Sprintf("%.0f/s, %s CPU", r.Throughput(), formatDuration(r.PerOperation())), nil
	})
	return nil
}

// capacityLoad is run once: it takes as many descriptors as there are.
func (b *bout) capacityLoad(ctx context.Context) error {
	servers, stop := b.start(ctx, own)
	defer stop()
	for _, s := range servers {
		r, err := b.measure(ctx, s, load.Options{Mode: load.Hold, Connections: b.capacity, Duration: b.hold})
		if err != nil {
			b.res.note("capacity: " + err.Error())
		}
		if r == nil {
			continue
		}
		served := 0.0
		for _, p := range r.Phases {
			if p.Name == "holding" {
				served = float64(p.Latency.Count())
			}
		}
		b.res.add("capacity-held", s.Name, float64(r.Done))
		b.res.add("capacity-lost", s.Name, float64(r.Failed()))
		b.res.add("capacity-served", s.Name, served)
		fmt.Fprintf(b.log, "capacity %s: %d held, %d failed, %.0f served\n", s.Name, r.Done, r.Failed(), served)
	}
	return nil
}
