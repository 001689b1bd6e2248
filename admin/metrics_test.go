package admin

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"starttlsd/codec"
	"starttlsd/engine"
	"starttlsd/engine/enginetest"
)

// sample has something in everything.
func sample() Metrics {
	l := engine.ListenerStats{Name: "smtp 127.0.0.1:25", Negotiated: map[engine.Negotiation]uint64{{Version: 0x0304, Cipher: 0x1301, Group: 29}: 3}}
	l.Accepted, l.Open, l.Plain, l.Secure, l.Upgrades, l.Resumed, l.Injected, l.Commands = 12, 3, 1, 2, 5, 1, 4, 77
	l.Ended[engine.ReasonMaxConnections], l.Ended[engine.ReasonDone] = 6, 7
	l.Handshakes = engine.Histogram{Below: make([]uint64, len(engine.HistogramBounds)), Count: 5, Sum: 90 * time.Millisecond}
	l.Handshakes.Below[len(l.Handshakes.Below)-1] = 5
	other := engine.ListenerStats{Name: "imap [::1]:143"}
	files := engine.ListenerStats{Name: "ftp [::1]:21"}
	files.Transfers[codec.NoFault], files.Transfers[codec.FaultNotResumed] = 9, 2
	return Metrics{
		Version: "v1", Ready: true, Engine: engine.Stats{MaxConnections: 100},
		Listeners:  []engine.ListenerStats{files, other, l},
		Deliveries: map[string]Deliveries{l.Name: {Stored: 8, Failed: 1}},
		Certificates: []CertificateStatus{
			{File: "a.pem", Names: []string{"mx.example"}, NotAfter: time.Unix(2e9, 0)},
			{File: "a.pem", Names: []string{"mx.example"}, NotAfter: time.Unix(2e9, 0)}, // twice
			{NotAfter: time.Unix(2e9, 0), Stale: "gone"},
		},
		TicketKeys: TicketKeys{On: true, Current: true},
		Reloads:    Reloads{Succeeded: 2, OK: true, Last: time.Unix(1.9e9, 0)},
	}
}

// serve runs a server for the time of the test.
func serve(t *testing.T, o Options) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, ln, o)
	return "http://" + ln.Addr().String()
}

func serveOn(t *testing.T, ln net.Listener, o Options) *Server {
	t.Helper()
	if o.Status == nil {
		o.Status = func() Status { return Status{Time: time.Now(), State: Serving} }
	}
	if o.Metrics == nil {
		o.Metrics = sample
	}
	o.Log = slog.New(slog.DiscardHandler)
	s := New(ln, o)
	s.Start()
	t.Cleanup(func() {
		s.Close()
		<-s.done
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestMetricsAreAsPrometheusWantsThem(t *testing.T) {
	_, text := get(t, serve(t, Options{})+"/metrics")
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, want := range []string{
		`starttlsd_connections_accepted_total{listener="127.0.0.1:25",protocol="smtp"} 12`,
		`starttlsd_connections_refused_total{listener="127.0.0.1:25",protocol="smtp",reason="max_connections"} 6`,
		`starttlsd_connections_ended_total{listener="127.0.0.1:25",protocol="smtp",reason="done"} 7`,
		`starttlsd_connections{layer="secure",listener="127.0.0.1:25",protocol="smtp"} 2`,
		`starttlsd_upgrades_total{listener="127.0.0.1:25",outcome="injected",protocol="smtp"} 4`,
		`starttlsd_upgrades_total{listener="127.0.0.1:25",outcome="failed_not_tls",protocol="smtp"} 0`,
		`starttlsd_tls_sessions_total{cipher="TLS_AES_128_GCM_SHA256",group="X25519",listener="127.0.0.1:25",protocol="smtp",version="TLS 1.3"} 3`,
		`starttlsd_handshake_seconds_bucket{listener="127.0.0.1:25",protocol="smtp",le="10"} 5`,
		`starttlsd_handshake_seconds_sum{listener="127.0.0.1:25",protocol="smtp"} 0.09`,
		`starttlsd_connections_accepted_total{listener="[::1]:143",protocol="imap"} 0`,
		`starttlsd_deliveries_total{listener="127.0.0.1:25",outcome="stored",protocol="smtp"} 8`,
		`starttlsd_transfers_total{listener="[::1]:21",outcome="ok",protocol="ftp"} 9`,
		`starttlsd_transfers_total{listener="[::1]:21",outcome="failed_not_resumed",protocol="ftp"} 2`,
		`starttlsd_certificate_expiry_timestamp_seconds{file="a.pem",name="mx.example"} 2e+09`,
		`starttlsd_certificate_stale{file="",name=""} 1`,
		`starttlsd_connections_limit 100`, `starttlsd_ticket_keys_shared 0`, `starttlsd_ticket_keys_current 1`,
		`starttlsd_config_reloads_total{outcome="ok"} 2`,
		"process_open_fds ", "go_goroutines ",
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("missing: %s", want)
		}
	}
}

func TestMetricsPassPromtool(t *testing.T) {
	enginetest.Need(t, "promtool")
	_, text := get(t, serve(t, Options{})+"/metrics")
	if out, err := enginetest.Program(t, text, "promtool", "check", "metrics"); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestMetricsAreGatheredNoMoreOftenForManyWhoAsk(t *testing.T) {
	var gathered atomic.Int64
	url := serve(t, Options{Metrics: func() Metrics {
		gathered.Add(1)
		return sample()
	}})
	began := time.Now()
	var wg sync.WaitGroup
	for range 100 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if status, body := get(t, url+"/metrics"); status != http.StatusOK || !strings.Contains(body, "starttlsd_ready 1") {
				t.Errorf("status %d", status)
			}
		}()
	}
	wg.Wait()
	if most := int64(time.Since(began)/atMost) + 1; gathered.Load() > most {
		t.Errorf("gathered %d times, want at most %d", gathered.Load(), most)
	}
}

func TestReadinessEndsWithServing(t *testing.T) {
	var state atomic.Value
	state.Store(Serving)
	url := serve(t, Options{Status: func() Status { return Status{State: state.Load().(State)} }})
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/nothing": 404} {
		if status, _ := get(t, url+path); status != want {
			t.Errorf("%s: %d", path, status)
		}
	}
	state.Store(Draining)
	if status, body := get(t, url+"/readyz"); status != 503 || body != "draining\n" {
		t.Errorf("draining: %d %q", status, body)
	}
	if status, _ := get(t, url+"/healthz"); status != 200 {
		t.Errorf("draining is not dead: %d", status)
	}
}

func TestProfilesAreMadeOneAtATimeAndNoneThatStopsTheProgram(t *testing.T) {
	url := serve(t, Options{})
	for path, want := range map[string]int{
		"/debug/pprof/": 200, "/debug/pprof/heap": 200, "/debug/pprof/goroutine?debug=1": 200,
		"/debug/pprof/trace?seconds=1": 403, "/debug/pprof/heap?gc=1": 403,
	} {
		if status, _ := get(t, url+path); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
	done := make(chan string)
	go func() {
		status, body := 503, ""
		for status == 503 { // the other one may be first
			status, body = get(t, url+"/debug/pprof/profile?seconds=1")
		}
		done <- body
	}()
	busy := false
	for end := time.Now().Add(time.Second); !busy && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		status, _ := get(t, url+"/debug/pprof/heap")
		busy = status == 503
	}
	if !busy {
		t.Error("two at a time")
	}
	if body := <-done; !bytes.HasPrefix([]byte(body), []byte{0x1f, 0x8b}) {
		t.Errorf("no profile: %.40q", body)
	}
}

func TestNothingIsTakenButWhatIsServed(t *testing.T) {
	url := serve(t, Options{})
	resp, err := http.Post(url+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", resp.StatusCode)
	}
}

func TestNamesOfOthersAreNotServedOnLoopback(t *testing.T) {
	url := serve(t, Options{})
	port := url[strings.LastIndex(url, ":"):]
	for host, want := range map[string]int{
		"127.0.0.1" + port: 200, "localhost" + port: 200, "[::1]" + port: 200, "localhost": 200,
		"evil.example" + port: 421, "localhost.evil.example": 421,
	} {
		req, _ := http.NewRequest(http.MethodGet, url+"/healthz", nil)
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%q: %d, want %d", host, resp.StatusCode, want)
		}
	}
}
