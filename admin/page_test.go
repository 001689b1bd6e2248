package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const hostile = `<script>alert(1)</script>"'&`

// busy is a status with something in everything.
func busy(n uint64) Status {
	now := time.Now()
	return Status{
		Time: now, Hostname: "mx.example.org", Version: "v1.2.3", PID: 4711, Started: now.Add(-26 * time.Hour), State: Serving, Stress: n%2 == 1,
		Open: 12345 + int64(n), Lent: 12, Relayed: 9000, Accepted: 100 * n, Upgrades: 1_000_000 + 80*n, Failed: 4 * n, Refused: 30 * n, Injected: 7 + n,
		Computing: 1, Queued: 17,
		Listeners: []ListenerStatus{
			{Address: "[::]:25", Protocol: "smtp", TLS: "starttls", Backend: "tcp://127.0.0.1:10025", Open: 8000, Accepted: 90 * n, Upgrades: 70 * n, Refused: 30 * n, Injected: 7},
			{Address: "[::]:993", Protocol: "imap", TLS: "implicit", Backend: "tcp://127.0.0.1:1143", Open: 4300, Accepted: 10 * n, Upgrades: 10 * n},
			{Address: "[::]:1143", Protocol: "imap", Closed: true, Open: 45},
		},
		Certificates: []CertificateStatus{
			{File: "/etc/starttlsd/fullchain.pem", Names: []string{"mx.example.org", "mail.example.org"}, NotAfter: now.AddDate(0, 0, 60)},
			{File: "/etc/starttlsd/old.pem", Names: []string{"old.example.org"}, NotAfter: now.AddDate(0, 0, 5), Stale: "key: cannot read " + hostile},
		},
		Refusals: []Refusal{
			{Last: now.Add(-3 * time.Second), Client: "203.0.113.9", Listener: "smtp [::]:25", Reason: "injected", Count: 7},
			{Last: now.Add(-90 * time.Second), Client: "2001:db8:1::/64", Listener: hostile, Reason: "client_rate", Count: 12345},
		},
		Limits: []LimitStatus{
			{Name: "max_connections", Value: "15000", Used: 12345 + int64(n), Most: 15000},
			{Name: "handshakes_queued", Value: "1024", Used: 17, Most: 1024},
			{Name: "handshake", Value: "10s"},
		},
	}
}

func TestPageHoldsEverythingWithoutJavaScript(t *testing.T) {
	url := serve(t, Options{Status: func() Status { return busy(3) }})
	resp, err := http.Get(url + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	page := string(b)
	for _, want := range []string{
		"mx.example.org", "v1.2.3", "4711", "1d 2h", "serving", "12,348", "9,000", "1,000,240", "tcp://127.0.0.1:10025", "smtp, starttls",
		"imap (closed, draining)", "203.0.113.9", "injected", "2001:db8:1::/64", "12,345", "1m 30s ago", "old.example.org", "5 days left",
		"max_connections", "12,348 of 15,000", `value="82"`, "snapshot of ", "polyline", `<html lang="en">`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if strings.Contains(page, "<script>alert") || !strings.Contains(page, "&lt;script&gt;alert") {
		t.Error("what a client or a file said is not escaped")
	}
	for header, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
	} {
		if got := resp.Header.Get(header); got != want {
			t.Errorf("%s: %q", header, got)
		}
	}
	if strings.Contains(page, "style=") || strings.Contains(page, "onclick") || strings.Count(page, "<script") != 1 {
		t.Error("something inline, which the policy does not allow")
	}
}

func TestEmptyPageSaysSo(t *testing.T) {
	_, page := get(t, serve(t, Options{Status: func() Status { return Status{Time: time.Now(), State: Draining} }})+"/")
	for _, want := range []string{"Nothing was refused.", "draining"} {
		if !strings.Contains(page, want) {
			t.Errorf("missing: %s", want)
		}
	}
}

func TestStaticFilesAreOursAlone(t *testing.T) {
	url := serve(t, Options{})
	for path, want := range map[string]int{
		"/static/page.css": 200, "/static/page.js": 200, "/static/icon.svg": 200, "/static/page.html": 404,
		"/static/": 404, "/static/../page.go": 404, "/static/%2e%2e/page.go": 404,
	} {
		if status, _ := get(t, url+path); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
}

// events opens a stream and returns what reads its next frame.
func events(t *testing.T, url string) (status int, next func() (frame, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url+"/events", nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	r := bufio.NewReader(resp.Body)
	return resp.StatusCode, func() (f frame, err error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return f, err
		}
		_, _ = r.ReadString('\n')
		text, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			return f, fmt.Errorf("%q", line)
		}
		return f, json.Unmarshal([]byte(text), &f)
	}
}

func TestFramesFollowTheStatusAndBringTheHistory(t *testing.T) {
	var n atomic.Uint64
	url := serve(t, Options{Status: func() Status { return busy(n.Add(1)) }})
	_, next := events(t, url)
	first, err := next()
	if err != nil {
		t.Fatal(err)
	}
	second, err := next()
	if err != nil {
		t.Fatal(err)
	}
	if second.Status.Open <= first.Status.Open || second.Rates.Upgrades < 40 || second.Rates.Upgrades > 120 || second.History != nil {
		t.Errorf("open %d, %d; rates %+v", first.Status.Open, second.Status.Open, second.Rates)
	}
	_, next = events(t, url)
	if late, err := next(); err != nil || len(late.History) < 2 {
		t.Errorf("%d points of history, %v", len(late.History), err)
	}
}

func TestTooManyWhoLookAreRefused(t *testing.T) {
	url := serve(t, Options{})
	for range maxSubscribers {
		if status, _ := events(t, url); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	if status, _ := events(t, url); status != 503 {
		t.Errorf("one more: status %d", status)
	}
	if status, _ := get(t, url+"/"); status != 200 {
		t.Errorf("the page itself: %d", status)
	}
}

// TestStatusIsAskedForOnceASecond, however many look at it, and however slowly.
func TestStatusIsAskedForOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		p := newPage(func() Status {
			asked++
			return busy(uint64(asked))
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.run(ctx)
		}()
		synctest.Wait()
		var all []chan []byte
		for range 20 { // none of them reads
			ch, _, ok := p.subscribe()
			if !ok {
				t.Fatal("refused")
			}
			all = append(all, ch)
		}
		time.Sleep(historySeconds*2*time.Second + time.Millisecond)
		cancel()
		<-done
		if want := 2*historySeconds + 1; asked != want {
			t.Errorf("asked %d times, not %d", asked, want)
		}
		if n := len(p.history.points); n != historySeconds {
			t.Errorf("%d points are kept", n)
		}
		for _, ch := range all {
			frames := 0
			for range ch { // run's end ends the stream
				frames++
			}
			if frames != 1 {
				t.Errorf("%d frames have waited for one who does not read", frames)
			}
		}
		if _, _, ok := p.subscribe(); ok {
			t.Error("a stream begins after the end")
		}
	})
}

func TestNumbersAndSpansAreReadable(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 0.25: "0.2", 9.94: "9.9", 10.6: "11", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := number(n); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m 1s", 3 * time.Hour: "3h 0m", 49 * time.Hour: "2d 1h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
