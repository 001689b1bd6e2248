package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

func middle(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// TestReloadStorm swaps the certificate every second and reloads every 3 s under as
// many upgrades as the machine gives: no handshake fails, no session is dropped, and
// new handshakes get the new certificate within a second.
func TestReloadStorm(t *testing.T) {
	lasts := 7 * time.Second
	if enginetest.Full() {
		lasts = 2 * time.Minute
	}
	dir := t.TempDir()
	var certs, keys []string
	for i := range 8 {
		cert, key := tlstest.WritePEM(t.TempDir(), tlstest.Certificate(fmt.Sprintf("v%d.example", i)))
		certs, keys = append(certs, cert), append(keys, key)
	}
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	replace(t, certs[0], cert)
	replace(t, keys[0], key)
	p := enginetest.Start(t, enginetest.Config{YAML: certificates(cert, key) +
		"listeners:\n" + listener("127.0.0.1:0", "./drop") + withAdmin + "limits: {junk_commands: 1048576, messages: 100000}\n"})
	addr := p.Addrs[0]
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	longest, err := enginetest.NewClient(nc)
	if err == nil {
		_ = nc.SetDeadline(time.Now().Add(lasts + time.Minute))
		err = longest.StartTLS(&tls.Config{InsecureSkipVerify: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	long := client{longest, t}

	// swaps is when each version came into force: what a handshake that begins a second
	// later must not be older than.
	var mu sync.Mutex
	swaps := []time.Time{time.Now().Add(-time.Hour)}
	newest := func(at time.Time) int {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for i, when := range swaps {
			if when.Before(at) {
				n = i
			}
		}
		return n
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var upgrades atomic.Int64
	var latest atomic.Int64 // time after a swap at which the old one was still seen
	for range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				version, err := oneUpgrade(addr)
				if err != nil {
					t.Error(err)
					return
				}
				upgrades.Add(1)
				// Versions go round: what is seen is a swap that is just being made, or one of
				// the latest.
				known := newest(began)
				for n := newest(time.Now()) + 1; n%len(certs) != version; n-- {
					if n > known {
						continue
					}
					mu.Lock()
					late := began.Sub(swaps[n])
					mu.Unlock()
					latest.Store(max(latest.Load(), int64(late)))
					if late > time.Second+machineSlack {
						t.Errorf("version %d is seen %v after version %d came", version, late, n)
						return
					}
				}
			}
		}()
	}
	began := time.Now()
	for n := 1; time.Since(began) < lasts; n++ {
		time.Sleep(time.Second)
		replace(t, keys[n%len(keys)], key)
		replace(t, certs[n%len(certs)], cert)
		mu.Lock()
		swaps = append(swaps, time.Now())
		mu.Unlock()
		if n%3 == 0 {
			p.Signal(syscall.SIGHUP)
		}
		if err := long.Noop(); err != nil {
			t.Fatal("the session that was there first:", err)
		}
	}
	took := time.Since(began)
	close(stop)
	wg.Wait()
	t.Logf("%d upgrades, %.0f a second, %d swaps; the old certificate was seen for up to %v",
		upgrades.Load(), float64(upgrades.Load())/took.Seconds(), len(swaps)-1, time.Duration(latest.Load()))
	long.deliver(message)
	long.quit()
	closedAll(t, p)
	values := scrape(t, p)
	if n := total(values, "starttlsd_upgrades_total", "failed_"); n != 0 {
		t.Errorf("%d handshakes failed", n)
	}
	if n := total(values, "starttlsd_config_reloads_total", `outcome="failed"`); n != 0 || total(values, "starttlsd_config_reloads_total", `outcome="ok"`) < int(lasts/(4*time.Second)) {
		t.Errorf("reloads: %d failed", n)
	}
	if fds, goroutines := values["process_open_fds"], values["go_goroutines"]; fds > 40 || goroutines > 80 {
		t.Errorf("left: %v descriptors, %v goroutines", fds, goroutines)
	}
	if strings.Contains(p.Log(), "CANNOT USE") {
		t.Error("a swap was taken for trouble")
	}
	checkStatus(t, p.Stop(), exitOK)
}

// oneUpgrade is a session of STARTTLS, NOOP and QUIT. It returns the version of the
// certificate.
func oneUpgrade(addr string) (version int, err error) {
	c, err := enginetest.Dial(addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		return 0, err
	}
	state, _ := c.TLSConnectionState()
	if _, err := fmt.Sscanf(state.PeerCertificates[0].DNSNames[0], "v%d.example", &version); err != nil {
		return 0, err
	}
	if err := c.Noop(); err != nil {
		return 0, err
	}
	return version, c.Quit()
}
