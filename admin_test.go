package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
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

// dialFrom is Dial with an address of our own on loopback, which is all ours.
func dialFrom(t *testing.T, from, to string) *textproto.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)), Timeout: time.Minute}
	nc, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	return textproto.NewConn(nc)
}

func TestLimitsPerClientHoldForEachAndNotForOthers(t *testing.T) {
	const clients, each, tries = 20, 3, 7
	p := start(t, withAdmin+fmt.Sprintf("limits: {per_client_loopback: true, connections_per_client: %d, handshakes_per_client: 2}\n", each))
	refused := 0
	for i := range clients {
		from := fmt.Sprintf("127.1.%d.1", i)
		in := 0
		for range tries {
			c := dialFrom(t, from, p.Addrs[0])
			switch line, err := c.ReadLine(); {
			case strings.HasPrefix(line, "220 "):
				in++
				_, _ = c.Cmd("STARTTLS")
				want := "220 2.0.0"
				if in > 2 {
					want = "454 4.7.0"
				}
				if line, err := c.ReadLine(); !strings.HasPrefix(line, want) {
					t.Errorf("%s, STARTTLS %d: %q, %v", from, in, line, err)
				}
			case strings.HasPrefix(line, "421 "):
				refused++
			default:
				t.Errorf("%q, %v", line, err)
			}
		}
		if in != each {
			t.Errorf("%s has %d connections, not %d", from, in, each)
		}
	}
	checkTotal(t, p, refused, "starttlsd_connections_refused_total", `reason="client_connections"`)
	checkTotal(t, p, clients*each, "starttlsd_connections")
	checkTotal(t, p, clients*2, "starttlsd_connections", `layer="upgrading"`)
	checkTotal(t, p, clients, "starttlsd_upgrades_total", `outcome="refused"`)
	enginetest.Eventually(t, "who was refused on the status page", func() bool {
		page := adminPage(t, p, "/")
		return strings.Contains(page, "127.1.19.1") && strings.Contains(page, "client_connections")
	})
}

func TestIPv6ClientsAreCountedByTheirNetwork(t *testing.T) {
	p := enginetest.Start(t, enginetest.Config{YAML: "listeners:\n" +
		"  - {address: \"127.0.0.1:0\", protocol: smtp, backend: \"maildir:./drop\", proxy_protocol: true, trusted: [127.0.0.1]}\n" +
		"limits: {connections_per_client: 2}\n"})
	greeting := func(client string) string {
		c := dialFrom(t, "127.0.0.1", p.Addrs[0])
		_, _ = c.W.WriteString("PROXY TCP6 " + client + " 2001:db8::1 4000 25\r\n")
		_ = c.W.Flush()
		line, _ := c.ReadLine()
		return line[:min(len(line), 3)]
	}
	for _, test := range []struct{ client, want string }{
		{"2001:db8:1::1", "220"}, {"2001:db8:1::2", "220"}, {"2001:db8:1::ffff:3", "421"}, // one /64
		{"2001:db8:1:1::1", "220"}, // another
	} {
		if got := greeting(test.client); got != test.want {
			t.Errorf("%s: %s, want %s", test.client, got, test.want)
		}
	}
}

func TestStressComesAndGoes(t *testing.T) {
	const most = 40
	p := start(t, withAdmin+fmt.Sprintf("limits: {max_connections: %d, stress: 1s}\n", most))
	var idle []*textproto.Conn
	for range most * 9 / 10 {
		c := dialFrom(t, "127.0.0.1", p.Addrs[0])
		if _, err := c.ReadLine(); err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	logged(t, p, "stress begins, deadlines are shortened")
	for _, c := range idle {
		if line, _ := c.ReadLine(); !strings.HasPrefix(line, "421 4.4.2") {
			t.Errorf("%q", line)
		}
	}
	logged(t, p, "stress is over, deadlines are as configured")
	checkTotal(t, p, 0, "starttlsd_stress")
	checkTotal(t, p, 1, "starttlsd_stress_periods_total")
	checkTotal(t, p, len(idle), "starttlsd_connections_ended_total", `reason="command_timeout"`)
	connect(t, enginetest.DialSTARTTLS, p.Addrs[0]).quit()
}

// TestManyStartTLSAtOnce: each is served or refused in words, and the counters agree.
func TestManyStartTLSAtOnce(t *testing.T) {
	many := 1000
	if enginetest.Full() {
		many = 5000
	}
	p := start(t, withAdmin+"limits: {handshakes_queued: 128, handshake: 60s, command: 60s, stress: 60s}\n"+
		"hostname: mx.example\n")
	established := connect(t, enginetest.DialSTARTTLS, p.Addrs[0])
	conns := make([]net.Conn, many)
	var wg sync.WaitGroup
	each := func(f func(i int)) {
		for i := range many {
			wg.Add(1)
			go func() {
				defer wg.Done()
				f(i)
			}()
		}
		wg.Wait()
	}
	for i := range many { // one after the other: the backlog is not what is tested
		nc, err := net.Dial("tcp", p.Addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(2 * time.Minute))
		conns[i] = nc
	}
	each(func(i int) {
		if line, err := textproto.NewReader(bufio.NewReader(conns[i])).ReadLine(); !strings.HasPrefix(line, "220 ") {
			t.Errorf("greeting %q, %v", line, err)
		}
	})
	var upgraded, refused, other atomic.Int64
	var longest atomic.Int64
	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			began := time.Now()
			if err := established.Reset(); err != nil {
				t.Error("the established session:", err)
				return
			}
			longest.Store(max(longest.Load(), int64(time.Since(began))))
		}
	}()
	each(func(i int) {
		_, _ = io.WriteString(conns[i], "STARTTLS\r\n")
		switch line, err := textproto.NewReader(bufio.NewReaderSize(conns[i], 16)).ReadLine(); {
		case strings.HasPrefix(line, "454 4.7.0"):
			refused.Add(1)
		case strings.HasPrefix(line, "220 2.0.0"):
			if err := tls.Client(conns[i], &tls.Config{InsecureSkipVerify: true}).Handshake(); err != nil {
				t.Error("after the go-ahead:", err)
				other.Add(1)
				return
			}
			upgraded.Add(1)
		default:
			other.Add(1)
			t.Errorf("%q, %v", line, err)
		}
	})
	close(stop)
	<-watched
	t.Logf("%d upgraded, %d refused, longest round trip of the established session %v",
		upgraded.Load(), refused.Load(), time.Duration(longest.Load()))
	if upgraded.Load() == 0 || int(upgraded.Load()+refused.Load()) != many {
		t.Errorf("%d upgraded, %d refused, %d otherwise", upgraded.Load(), refused.Load(), other.Load())
	}
	checkTotal(t, p, int(upgraded.Load())+1, "starttlsd_upgrades_total", `outcome="ok"`)
	checkTotal(t, p, int(refused.Load()), "starttlsd_upgrades_total", `outcome="refused"`)
	established.quit()
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

// TestFloodDoesNotFillTheLog, and what else happens is still there to be read.
func TestFloodDoesNotFillTheLog(t *testing.T) {
	const flood = 3000
	p := start(t, withAdmin+"log: {rate: 1, burst: 50}\n")
	for range flood {
		nc, err := net.Dial("tcp", p.Addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.Close()
	}
	connect(t, enginetest.DialSTARTTLS, p.Addrs[0]).quit()
	closedAll(t, p)
	logged(t, p, "reason=done")
	if n := strings.Count(p.Log(), "reason=peer_closed") + strings.Count(p.Log(), "reason=reset"); n < 50 || n > 200 {
		t.Errorf("%d lines of the flood", n)
	}
	left := total(scrape(t, p), "starttlsd_log_lines_left_out_total")
	if left < flood-200 {
		t.Errorf("%d lines were left out", left)
	}
	p.Stop()
	if !strings.Contains(p.Log(), `msg="log lines of a kind were left out" kind="connection: `) {
		t.Error("nobody says how many")
	}
}
