package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sync/semaphore"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// Config is what New needs. The zero value of every number means its default.
type Config struct {
	Listeners  []Listener
	Admission  Admission
	Handshakes tlsbridge.SlotLimits // process-wide handshake counts; Computing is for listeners with TLSWaits
	Loops      int                  // event loops, each of which computes one handshake at a time; default max(1, GOMAXPROCS-1)
	Log        *slog.Logger         // default slog.Default()
	Reserve    int                  // descriptors that the program needs otherwise

	// TuneMemory lets the engine set the garbage collector's percentage and give
	// memory back to the system, unless GOGC or GOMEMLIMIT are set. For programs
	// that do little else: both are the whole process's.
	TuneMemory bool
}

// Listener is one address and what is spoken there.
type Listener struct {
	Listener net.Listener // bound; its connections must be *net.TCPConn. The engine closes it
	Name     string       // for the log and the counters, such as "smtp"
	TLS      *tls.Config  // nil: no TLS, STARTTLS is refused
	Implicit bool         // TLS from the first byte (RFC 8314 §3)
	TLSWaits bool         // callbacks of TLS may wait or end their goroutine: handshakes then compute on goroutines

	// NewSession makes the session of one connection. Any goroutine may call it.
	// The Peer is the engine's, does not change, and may be kept by the session.
	NewSession func(*codec.Peer) codec.Session
	Limits     Limits

	// Dial connects a session to its backend and has it introduced; nil: sessions
	// have none. Many goroutines may call it. It waits, but no longer than ctx and
	// a limit of its own allow. Sessions are then codec.Relayed.
	Dial func(ctx context.Context, s codec.Relayed, c *codec.Client) (Upstream, error)

	// Trusted are the networks of proxies that begin each connection with a PROXY
	// header, version 1 or 2, which says who the client is. Others are not let in.
	// Nil: clients connect themselves.
	Trusted []netip.Prefix

	// Data lets sessions have data connections; nil: they have none.
	Data *Data

	// Admission counts and bounds the connections of this listener by themselves, in
	// place of the engine's limits per client and next to its MaxConnections. Nil:
	// they are counted with those of the other listeners.
	Admission *Admission
}

// Limits bound one connection.
type Limits struct {
	Handshake      time.Duration // from the go-ahead to the end of the handshake, absolute; default 10 s
	HandshakeInput int           // bytes the peer may send in it; default 16 KiB, 288 KiB with client certificates
	Command        time.Duration // for one complete command, and for reading our replies; default 300 s (RFC 5321 §4.5.3.2.7)
	BodyStall      time.Duration // without a byte of a body; default 180 s (RFC 5321 §4.5.3.2.5)
	BodyRate       int           // bytes/s of a body, counted after its first minute; default 500
	Output         int           // bytes of replies gathered before they are written; default 64 KiB
	Idle           time.Duration // of a relayed session after that; default 30 min
	Reply          time.Duration // for a reply of the backend; default 10 min (RFC 5321 §4.5.3.2.6)
	Login          time.Duration // from the start until bytes are carried across unseen, or a codec.Settler has logged in; default 0: no limit
	DataConnect    time.Duration // for a client's data connection to come; default 30 s
	Linger         time.Duration // waiting for the peer's FIN after ours; default 5 s
	Stress         time.Duration // the most that Handshake, Command and Linger are under stress; default 10 s
}

// Admission bounds all connections together and those of one client, which is
// an IPv4 address or an IPv6 /64.
type Admission struct {
	MaxConnections      int  // default, and most: AutoMaxConnections; of a Listener: default no limit
	PerClient           int  // open at once; default 50
	RatePerClient       int  // new ones a minute; default 300
	HandshakesPerClient int  // TLS handshakes a minute; default 60
	LimitLoopback       bool // apply the per-client limits to loopback addresses too
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func (l *Limits) setDefaults() {
	setDefault(&l.Handshake, 10*time.Second)
	setDefault(&l.Command, 300*time.Second)
	setDefault(&l.BodyStall, 180*time.Second)
	setDefault(&l.BodyRate, 500)
	setDefault(&l.Output, 64<<10)
	setDefault(&l.Idle, 30*time.Minute)
	setDefault(&l.Reply, 10*time.Minute)
	setDefault(&l.DataConnect, 30*time.Second)
	setDefault(&l.Linger, 5*time.Second)
	setDefault(&l.Stress, 10*time.Second)
}

func (a *Admission) setDefaults() {
	setDefault(&a.PerClient, 50)
	setDefault(&a.RatePerClient, 300)
	setDefault(&a.HandshakesPerClient, 60)
}

// stage is how far the engine's end has come. It only grows.
type stage uint32

const (
	running   stage = iota
	retiring        // another process takes new connections; sessions go on, upgrades too
	draining        // no new connections, no new upgrades; sessions go on
	farewells       // every session is told goodbye as soon as it can be
	ending          // connections are cut
)

// Engine is a running server. Its methods may be called from any goroutine.
type Engine struct {
	cfg                                  Config
	log                                  *slog.Logger
	client                               *gnet.Client
	door                                 *door
	slots                                *tlsbridge.Slots
	start                                time.Time
	warned                               atomic.Int64        // when a shortage was last logged
	files                                *semaphore.Weighted // descriptors: one a connection, one more while its session may open a file
	filesLimit                           int64
	refusals                             *refusals
	admitted, upgrades, panics, stresses atomic.Uint64
	stressed                             atomic.Bool
	linger                               atomic.Int64 // the longest time.Duration of it that there was

	servedMu sync.Mutex
	served   []*Served
	counts   map[string]*counters // by the name of their listener
	max      int                  // connections, and why
	whyMax   string
	goodbye  context.Context // done when the sessions are told goodbye
	sayBye   context.CancelFunc
	nextID   atomic.Uint64 // a codec.ConnID; begins with the time of the start
	stage    atomic.Uint32

	loops    atomic.Pointer[[]*loop]
	loopsMu  sync.Mutex
	lentMu   sync.Mutex
	lentSet  map[*conn]struct{}
	swap     chan struct{} // one token each lend or give-back in progress: each takes a second descriptor for a moment
	refusing chan struct{} // one token each refused connection that lingers

	acceptors  sync.WaitGroup
	goroutines sync.WaitGroup // handshakes, lent connections, tidying up
	open       sync.WaitGroup // admitted connections
	stopTicker chan struct{}
	ticker     sync.WaitGroup
	cut        chan struct{} // closed by Close
	cutOnce    sync.Once
	stopOnce   sync.Once
	stopped    chan struct{}
	stopErr    error
}

// New starts serving. On an error nothing is left running, and the listeners are
// still the caller's.
func New(cfg Config) (*Engine, error) {
	if len(cfg.Listeners) == 0 {
		return nil, errors.New("engine: no listener")
	}
	setDefault(&cfg.Loops, defaultLoops())
	setDefault(&cfg.Log, slog.Default())
	cfg.Admission.setDefaults()
	backends := slices.ContainsFunc(cfg.Listeners, func(l Listener) bool { return l.Dial != nil })
	e := &Engine{
		cfg:        cfg,
		log:        cfg.Log,
		slots:      tlsbridge.NewSlots(cfg.Handshakes),
		filesLimit: int64(descriptorStock(len(cfg.Listeners), cfg.Loops, cfg.Reserve, descriptorsEach(backends))),
		refusals:   newRefusals(),
		counts:     make(map[string]*counters),
		start:      time.Now(),
		lentSet:    make(map[*conn]struct{}),
		swap:       make(chan struct{}, swapping),
		refusing:   make(chan struct{}, refusing),
		stopTicker: make(chan struct{}),
		cut:        make(chan struct{}),
		stopped:    make(chan struct{}),
	}
	e.files = semaphore.NewWeighted(e.filesLimit)
	e.door = newDoor(cfg.Admission)
	e.Admit(cfg.Admission, backends)
	e.nextID.Store(uint64(e.start.UnixMilli()) << 20)
	e.goodbye, e.sayBye = context.WithCancel(context.Background())
	e.loops.Store(new([]*loop))

	var err error
	e.client, err = gnet.NewClient(&handler{e: e},
		gnet.WithNumEventLoop(cfg.Loops),
		gnet.WithReadBufferCap(readSize),
		gnet.WithTCPNoDelay(gnet.TCPDelay), // leave it as net has set it: without delay
		gnet.WithLogger(gnetLog{e.log}))
	if err != nil {
		return nil, err
	}
	if err := e.client.Start(); err != nil {
		return nil, err
	}
	e.ticker.Add(1)
	go e.tickLoops()
	for _, l := range cfg.Listeners {
		if _, err := e.Serve(l); err != nil {
			return nil, err // cannot be: nothing has ended it
		}
	}
	return e, nil
}

// defaultLoops leaves one processor to goroutines. Were every one in the hands of a
// loop that waits for events, nobody would look for those of goroutines for up to 10 ms.
func defaultLoops() int { return max(1, runtime.GOMAXPROCS(0)-1) }

func (e *Engine) at() stage { return stage(e.stage.Load()) }

// reach moves the engine's end forward, never back.
func (e *Engine) reach(s stage) {
	for old := e.stage.Load(); old < uint32(s); old = e.stage.Load() {
		if e.stage.CompareAndSwap(old, uint32(s)) {
			return
		}
	}
}

// now is the time since the engine's start, which is what deadlines are given in.
func (e *Engine) now() time.Duration { return time.Since(e.start) }

// deadline turns a deadline into a time for a net.Conn.
func (e *Engine) deadline(d time.Duration) time.Time { return e.start.Add(d) }

// shortage warns that something of ours has run out, once a second.
func (e *Engine) shortage(doing, listener string, err error) {
	if now := e.now(); now-time.Duration(e.warned.Load()) > time.Second {
		e.warned.Store(int64(now))
		e.log.Warn("out of resources", "doing", doing, "listener", listener, "err", err)
	}
}

// panicked records a bug.
func (e *Engine) panicked(id codec.ConnID, v any) {
	e.panics.Add(1)
	e.log.Error("panic, closing the connection", "id", id, "panic", v, "stack", string(debug.Stack()))
}

// spawn runs f on a goroutine that the engine's end waits for.
func (e *Engine) spawn(f func()) {
	e.goroutines.Add(1)
	go func() {
		defer e.goroutines.Done()
		f()
	}()
}

// Served are the listeners in the order in which they were given to New and Serve.
func (e *Engine) Served() []*Served {
	e.servedMu.Lock()
	defer e.servedMu.Unlock()
	return slices.Clone(e.served)
}

// Shutdown closes the listeners at once, lets the sessions go on until ctx is
// done or none is left, then says goodbye to the rest, and stops. It returns nil
// when every session ended by itself, else ctx.Err(), context.Canceled after
// Close, or an error when something would not end; the process should exit then.
// STARTTLS is refused meanwhile.
func (e *Engine) Shutdown(ctx context.Context) error { return e.endFrom(draining, ctx) }

// Retire is Shutdown for an engine whose listeners another process has, so that
// clients do not see it: sessions may still upgrade.
func (e *Engine) Retire(ctx context.Context) error { return e.endFrom(retiring, ctx) }

func (e *Engine) endFrom(s stage, ctx context.Context) error {
	e.reach(s)
	e.stopOnce.Do(func() { e.stopErr = e.stop(ctx) })
	<-e.stopped
	return e.stopErr
}

// Close ends everything now, a Shutdown in progress included. Nobody is told goodbye.
func (e *Engine) Close() error {
	e.cutOnce.Do(func() { close(e.cut) })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
