package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
)

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
	p := start(t, withAdmin+"limits: {junk_commands: 1048576, handshakes_queued: 128, handshake: 60s, command: 60s, stress: 60s}\n"+
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
