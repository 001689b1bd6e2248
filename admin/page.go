package admin

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"sync"
	"time"
)

const (
	frameEvery     = time.Second
	maxSubscribers = 32
	writeTime      = 5 * time.Second // for one frame
)

//go:embed static
var files embed.FS

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"number":   func(n any) string { return numberOf(n) },
	"span":     span,
	"percent":  func(used, most int64) int { return int(100 * used / max(1, most)) },
	"days":     daysLeft,
	"critical": func(now, notAfter time.Time) bool { return daysLeft(now, notAfter) < 14 },
	"since":    func(now, then time.Time) string { return span(now.Sub(then)) },
}).ParseFS(files, "static/page.html"))

func numberOf(n any) string {
	switch n := n.(type) {
	case int64:
		return number(float64(n))
	case uint64:
		return number(float64(n))
	case int:
		return number(float64(n))
	case float64:
		return number(n)
	default:
		return fmt.Sprint(n)
	}
}

func daysLeft(now, notAfter time.Time) int { return int(notAfter.Sub(now) / (24 * time.Hour)) }

// page is the status page. The status is asked for once a second, by run, however
// many look at it.
type page struct {
	status func() Status
	every  time.Duration

	mu          sync.Mutex
	history     history
	subscribers map[chan []byte]bool // each with room for one frame
	ended       bool
}

// frame is what is sent once a second.
type frame struct {
	Status  *Status `json:"status"`
	Rates   Point   `json:"rates"`
	History []Point `json:"history,omitempty"` // in the first one
}

func newPage(status func() Status) *page {
	return &page{status: status, every: frameEvery, subscribers: make(map[chan []byte]bool)}
}

// run gathers and sends frames until ctx is done, which ends all streams.
func (p *page) run(ctx context.Context) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ended = true
		for s := range p.subscribers {
			close(s)
		}
		p.subscribers = nil
	}()
	t := time.NewTicker(p.every)
	defer t.Stop()
	for {
		p.look()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// look takes the status and sends it to whoever has room for it: who is slower than
// the frames come misses some.
func (p *page) look() {
	s := p.status()
	p.mu.Lock()
	defer p.mu.Unlock()
	text := encode(frame{Status: &s, Rates: p.history.add(&s)})
	for ch := range p.subscribers {
		select {
		case ch <- text:
		default:
		}
	}
}

func encode(f frame) []byte {
	text, err := json.Marshal(f)
	if err != nil {
		panic(err) // there is nothing in it that could not be
	}
	return text
}

// subscribe returns the frames to come and the first one, or ok false when there are
// too many who look.
func (p *page) subscribe() (ch chan []byte, first []byte, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || len(p.subscribers) >= maxSubscribers {
		return nil, nil, false
	}
	ch = make(chan []byte, 1)
	p.subscribers[ch] = true
	s := p.history.last
	f := frame{Status: &s, History: p.history.points}
	if n := len(p.history.points); n > 0 {
		f.Rates = p.history.points[n-1]
	}
	return ch, encode(f), true
}

func (p *page) unsubscribe(ch chan []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.subscribers, ch)
}

// events is the stream of frames, as server-sent events.
func (p *page) events(w http.ResponseWriter, r *http.Request) {
	ch, text, ok := p.subscribe()
	if !ok {
		w.Header().Set("Retry-After", "30")
		say(w, http.StatusServiceUnavailable, "too many who look at the status page")
		return
	}
	defer p.unsubscribe(ch)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	for ok {
		_ = rc.SetWriteDeadline(time.Now().Add(writeTime))
		if _, err := fmt.Fprintf(w, "data: %s\n\n", text); err != nil || rc.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case text, ok = <-ch:
		}
	}
}

// shown is what the template gets.
type shown struct {
	Status
	Rates         Point
	UpgradesChart chart
	OpenChart     chart
	Uptime        time.Duration
}

// index is the page itself: all there is, also without JavaScript.
func (p *page) index(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	s := shown{Status: p.history.last}
	p.mu.Unlock()
	if s.Time.IsZero() { // run has not looked yet
		s.Status = p.status()
	}
	p.mu.Lock()
	s.UpgradesChart = p.history.chart(func(p *Point) float64 { return p.Upgrades })
	s.OpenChart = p.history.chart(func(p *Point) float64 { return float64(p.Open) })
	if n := len(p.history.points); n > 0 {
		s.Rates = p.history.points[n-1]
	}
	p.mu.Unlock()
	s.Uptime = s.Time.Sub(s.Started)
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, s); err != nil {
		say(w, http.StatusInternalServerError, err.Error())
		return
	}
	protect(w)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(b.Bytes())
}

// protect has the browser load and run nothing but what is ours.
func protect(w http.ResponseWriter) {
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "+
		"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Referrer-Policy", "no-referrer")
}

// static are the style and the script, and nothing else.
func (p *page) static() http.Handler {
	types := map[string]string{"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[len("/static/"):]
		kind, ok := types[name]
		text, err := files.ReadFile("static/" + name)
		if !ok || err != nil {
			http.NotFound(w, r)
			return
		}
		protect(w)
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(text)
	})
}
