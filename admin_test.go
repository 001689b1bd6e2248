package main

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
)

// withAdmin is a configuration's block for the operator's address.
const withAdmin = "admin: {address: \"127.0.0.1:0\"}\n"

// scrape reads the metrics at the operator's address, which is the last.
func scrape(t *testing.T, p *enginetest.Process) map[string]float64 {
	t.Helper()
	text := adminPage(t, p, "/metrics")
	values := make(map[string]float64)
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if ok {
			name += "}"
		} else {
			name, value, _ = strings.Cut(strings.TrimSpace(line), " ")
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] = v
		}
	}
	return values
}

func adminPage(t *testing.T, p *enginetest.Process, path string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Get("http://" + p.Addrs[len(p.Addrs)-1] + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// total is the sum over all label sets that have all the parts.
func total(values map[string]float64, name string, parts ...string) (sum int) {
next:
	for series, v := range values {
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(series, part) {
				continue next
			}
		}
		sum += int(v)
	}
	return sum
}

// checkTotal wants a sum to come to want: the server may learn of a client's last
// words a moment after they were written.
func checkTotal(t *testing.T, p *enginetest.Process, want int, name string, parts ...string) {
	t.Helper()
	var got int
	for range 50 {
		if got = total(scrape(t, p), name, parts...); got == want {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%s %v: %d, want %d", name, parts, got, want)
}

// closedAll waits until the server has seen the end of all connections.
func closedAll(t *testing.T, p *enginetest.Process) {
	t.Helper()
	enginetest.Eventually(t, "the end of all connections", func() bool {
		return total(scrape(t, p), "starttlsd_connections") == 0
	})
}

func TestMetricsAgreeWithWhatClientsSaw(t *testing.T) {
	p := start(t, withAdmin)
	for range 3 {
		c := connect(t, enginetest.DialSTARTTLS, p.Addrs[0])
		c.deliver(message)
		c.quit()
	}
	plain := connect(t, enginetest.Dial, p.Addrs[0])
	plain.quit()
	evil, err := net.Dial("tcp", p.Addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(evil, "STARTTLS\r\nNOOP\r\n")
	_, _ = io.ReadAll(evil)
	_ = evil.Close()
	closedAll(t, p)
	for want, series := range map[string]int{
		"starttlsd_connections_accepted_total":                  5,
		"starttlsd_upgrades_total|outcome=\"ok\"":               3,
		"starttlsd_upgrades_total|outcome=\"injected\"":         1,
		"starttlsd_tls_sessions_total|version=\"TLS 1.3\"":      3,
		"starttlsd_handshake_seconds_count":                     3,
		"starttlsd_deliveries_total|outcome=\"stored\"":         3,
		"starttlsd_connections_ended_total|reason=\"done\"":     4,
		"starttlsd_connections_ended_total|reason=\"injected\"": 1,
		"starttlsd_ready": 1,
	} {
		parts := strings.Split(want, "|")
		checkTotal(t, p, series, parts[0], parts[1:]...)
	}
	enginetest.Eventually(t, "a newer status page", func() bool { return strings.Contains(adminPage(t, p, "/"), "injected</td>") })
	page := adminPage(t, p, "/")
	for _, want := range []string{"127.0.0.1", "injected", p.Addrs[0], "max_connections"} {
		if !strings.Contains(page, want) {
			t.Errorf("the status page does not show %q", want)
		}
	}
}

func TestReadinessEndsBeforeTheSessions(t *testing.T) {
	p := start(t, withAdmin)
	c := connect(t, enginetest.DialSTARTTLS, p.Addrs[0])
	if got := adminPage(t, p, "/readyz"); got != "ok\n" {
		t.Errorf("ready: %q", got)
	}
	p.Signal(15)
	enginetest.Eventually(t, "not ready", func() bool { return adminPage(t, p, "/readyz") == "draining\n" })
	checkTotal(t, p, 0, "starttlsd_ready")
	c.deliver(message)
	c.quit()
	checkStatus(t, p.Wait(), exitOK)
}

func TestHundredScrapersDoNotSlowTheSessions(t *testing.T) {
	p := start(t, withAdmin+"limits: {junk_commands: 1048576}\n")
	c := connect(t, enginetest.DialSTARTTLS, p.Addrs[0])
	median := func() time.Duration {
		times := make([]time.Duration, 0, 301)
		for range cap(times) {
			began := time.Now()
			if err := c.Noop(); err != nil {
				t.Fatal(err)
			}
			times = append(times, time.Since(began))
			time.Sleep(time.Millisecond)
		}
		return middle(times)
	}
	calm := median()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var scraped atomic.Int64
	client := &http.Client{Timeout: time.Minute}
	for i := range 100 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			paths := []string{"/metrics", "/", "/healthz", "/debug/pprof/heap"}
			for {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond): // what 100 of them could want
				}
				resp, err := client.Get("http://" + p.Addrs[1] + paths[i%len(paths)])
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				scraped.Add(1)
			}
		}()
	}
	busy := median()
	close(stop)
	wg.Wait()
	client.CloseIdleConnections()
	t.Logf("%d requests; median round trip %v, without them %v", scraped.Load(), busy, calm)
	if scraped.Load() < 50 {
		t.Error("nobody has asked")
	}
	if busy > 50*time.Millisecond+10*calm { // two cores, which the scrapers share
		t.Errorf("median round trip %v, without them %v", busy, calm)
	}
	c.quit()
}

// TestInteropPrometheusScrapes has a real one take the metrics of a server.
func TestInteropPrometheusScrapes(t *testing.T) {
	enginetest.Need(t, "prometheus")
	p := start(t, withAdmin)
	connect(t, enginetest.DialSTARTTLS, p.Addrs[0]).quit()
	dir, port := t.TempDir(), enginetest.FreePort(t)
	file := enginetest.Fill(t, dir, "prometheus.yml", `
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: starttlsd
    static_configs: [{targets: ["TARGET"]}]
`, "TARGET", p.Addrs[1])
	enginetest.Daemon(t, "prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:"+port)
	enginetest.Listens(t, port)
	ask := func(query string) string {
		resp, err := http.Get("http://127.0.0.1:" + port + "/api/v1/query?query=" + query)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	for query, want := range map[string]string{
		`up{job="starttlsd"}`:                         `"1"]`,
		`sum(starttlsd_upgrades_total{outcome="ok"})`: `"1"]`,
		`sum(starttlsd_handshake_seconds_bucket)>0`:   `"value"`,
	} {
		enginetest.Eventually(t, query, func() bool { return strings.Contains(ask(query), want) })
	}
	http.DefaultClient.CloseIdleConnections()
}
