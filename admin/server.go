package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// MaxConnections is how many there may be at a time; others wait.
const MaxConnections = 64

// Options are what New needs. Any goroutine may call the functions, which must not
// wait for anybody.
type Options struct {
	Status  func() Status
	Metrics func() Metrics
	Log     *slog.Logger
}

// Server serves one address. Its methods are for one goroutine.
type Server struct {
	listener net.Listener
	http     *http.Server
	page     *page
	run      context.Context
	stop     context.CancelFunc
	done     chan struct{}
}

// New returns a server on ln, which becomes its own.
func New(ln net.Listener, o Options) *Server {
	s := &Server{listener: netutil.LimitListener(ln, MaxConnections), page: newPage(o.Status), done: make(chan struct{})}
	s.run, s.stop = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           forLocal(ln.Addr(), s.routes(o)),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      2 * time.Minute, // a profile takes 30 s
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s
}

func (s *Server) routes(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", newMetrics(o.Metrics))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if state := o.Status().State; state != Serving {
			say(w, http.StatusServiceUnavailable, string(state))
			return
		}
		say(w, http.StatusOK, "ok")
	})
	one := make(chan struct{}, 1)
	for path, h := range map[string]http.HandlerFunc{
		"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol,
	} {
		mux.Handle("GET /debug/pprof/"+path, oneAtATime(one, h))
	}
	mux.HandleFunc("GET /events", s.page.events)
	mux.Handle("GET /static/", s.page.static())
	mux.HandleFunc("GET /{$}", s.page.index)
	return mux
}

// forLocal refuses what was not asked for by an address or as localhost, where the
// server is on loopback: a web site that has its own name lead here would have the
// operator's browser read it (DNS rebinding).
func forLocal(at net.Addr, next http.Handler) http.Handler {
	addr, ok := at.(*net.TCPAddr)
	if !ok || !addr.IP.IsLoopback() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.Trim(r.Host, "[]")
		}
		if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
			say(w, http.StatusMisdirectedRequest, "ask for an address or for localhost")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// oneAtATime serves profiles one after the other, and none that stops the program
// for long: a garbage collection by request, or a trace.
func oneAtATime(one chan struct{}, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if strings.HasSuffix(r.URL.Path, "/trace") || q.Has("gc") {
			say(w, http.StatusForbidden, "this would hold all connections up")
			return
		}
		select {
		case one <- struct{}{}:
			defer func() { <-one }()
			next(w, r)
		default:
			w.Header().Set("Retry-After", "30")
			say(w, http.StatusServiceUnavailable, "another profile is being made")
		}
	})
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}

// Start begins to serve.
func (s *Server) Start() {
	go s.page.run(s.run)
	go func() {
		defer close(s.done)
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.http.ErrorLog.Print(err)
		}
	}()
}

// Close ends the listener and all that is served.
func (s *Server) Close() {
	s.stop()
	_ = s.http.Close()
	_ = s.listener.Close()
}
