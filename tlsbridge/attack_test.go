package tlsbridge

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"starttlsd/tlsbridge/tlstest"
)

// failsWith expects the handshake of l to have failed for reason.
func failsWith(t *testing.T, l *loop, reason Reason) {
	t.Helper()
	var he *HandshakeError
	if err := l.wait(); !errors.As(err, &he) || he.Reason != reason {
		t.Errorf("server ended with %v, want %v", err, reason)
	}
	if _, err := l.conn.Read(make([]byte, 1)); err != l.err {
		t.Errorf("the next read said %v", err)
	}
	if n, err := l.conn.Write([]byte("x")); n != 0 || err != l.err {
		t.Errorf("write after the failure: %d, %v", n, err)
	}
	if s := l.slots.Stats().SlotCounts; s != (SlotCounts{}) {
		t.Errorf("slots not returned: %+v", s)
	}
}

func alertRecord(code byte) string { return string([]byte{tlstest.TypeAlert, 3, 1, 0, 2, 2, code}) }

func TestGarbageInPlaceOfTheClientHello(t *testing.T) {
	hello := func(s string) string { // one record with s
		return "\x16\x03\x01" + string([]byte{byte(len(s) >> 8), byte(len(s))}) + s
	}
	for _, test := range []struct {
		name, in, out string
		reason        Reason
	}{
		{"smtp command", "EHLO x\r\n", "", ReasonNotTLS},
		{"one letter", "E", "", ReasonNotTLS},
		{"http", "GET / HTTP/1.1\r\n\r\n", "", ReasonNotTLS},
		{"zeros", "\x00\x00\x00\x00\x00\x00", "", ReasonNotTLS},
		{"sslv2 hello", "\x80\x2e\x01\x00\x02", "", ReasonNotTLS},
		{"alert", "\x15\x03\x01\x00\x02\x02\x28", "", ReasonNotTLS},
		{"application data", "\x17\x03\x01\x00\x01x", "", ReasonNotTLS},
		{"change cipher spec", "\x14\x03\x01\x00\x01\x01", "", ReasonNotTLS},
		{"version 16", "\x16\x10\x01\x00", "", ReasonNotTLS},
		{"record too long", "\x16\x03\x01\x48\x01", alertRecord(22), ReasonProtocol},
		{"empty record", "\x16\x03\x01\x00\x00", alertRecord(10), ReasonProtocol},
		{"message too long", hello("\x01\x01\x00\x01"), alertRecord(80), ReasonProtocol},
		{"server hello", hello("\x02\x00\x00\x00"), alertRecord(50), ReasonProtocol},
		{"hello request", hello("\x00\x00\x00\x00"), alertRecord(10), ReasonProtocol},
		{"empty hello", hello("\x01\x00\x00\x00"), alertRecord(50), ReasonProtocol},
		{"alert inside hello", hello("\x01\x00\x01\x00") + "\x15\x03\x01\x00\x02\x02\x28", "", ReasonPeerAlert},
		{"text inside hello", hello("\x01\x00\x01\x00") + "E\x03\x01\x00\x01x", "", ReasonNotTLS},
	} {
		for _, cut := range []struct {
			name   string
			option loopOption
		}{{"whole", func(*loop, *loopLink, *Options) {}}, {"by byte", oneByte}} {
			t.Run(test.name+"/"+cut.name, func(t *testing.T) {
				l, end := startLoop(t, tlstest.ServerConfig(), cut.option)
				if err := writeAll(end, []byte(test.in)); err != nil {
					t.Fatal(err)
				}
				if out, _ := io.ReadAll(end); string(out) != test.out {
					t.Errorf("answer % x, want % x", out, test.out)
				}
				failsWith(t, l, test.reason)
			})
		}
	}
}

func TestStalledClientHelloEndsAtTheBudget(t *testing.T) {
	for _, test := range []struct {
		name         string
		auth         tls.ClientAuthType
		set, allowed int
	}{
		{"default", tls.NoClientCert, 0, 16 << 10},
		{"client certificates", tls.RequestClientCert, 0, 288 << 10},
		{"set", tls.NoClientCert, 1000, 1000},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := tlstest.ServerConfig()
			cfg.ClientAuth = test.auth
			client, server := newWire()
			slots := NewSlots(SlotLimits{})
			permit, _ := slots.Reserve(noClient)
			c := Server(&loopLink{end: server}, cfg, Options{Permit: permit, Budget: test.set})
			// One-byte records of a 64 KiB message that never comes to its end.
			stalled := oneByteRecords(append([]byte{22, 3, 1, 255, 255, 1, 0, 255, 255}, make([]byte, 64<<10)...))
			if err := writeAll(client, stalled[:test.allowed]); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(nil); err != ErrWouldBlock {
				t.Fatal("within the budget:", err)
			}
			if err := writeAll(client, stalled[test.allowed:][:1]); err != nil {
				t.Fatal(err)
			}
			var he *HandshakeError
			if _, err := c.Read(nil); !errors.As(err, &he) || he.Reason != ReasonBudget {
				t.Error("above the budget:", err)
			}
			if stats := slots.Stats(); stats.SlotCounts != (SlotCounts{}) || stats.Peak.Computing != 0 {
				t.Errorf("slots %+v", stats)
			}
		})
	}
}

// Each of these records would wake the goroutine and take a slot.
func TestAnswerInTinyRecordsEndsAtTheBudget(t *testing.T) {
	slots := NewSlots(SlotLimits{})
	r := newRig(t, tlstest.ServerConfig(), slots, Options{})
	r.send(helloOf(clientConfig(tls.VersionTLS12)))
	_ = r.pump(func() bool { return slots.Stats().Parked == 1 })
	r.send(oneByteRecords(append([]byte{22, 3, 3, 255, 255, 16, 0, 255, 255}, make([]byte, 64<<10)...)))
	r.fails(ReasonBudget)
	r.counts(slots, SlotCounts{})
}

func TestHandshakeFailuresHaveTheirAlertAndReason(t *testing.T) {
	for _, test := range []struct {
		name   string
		server func(*tls.Config)
		client func(*tls.Config)
		alert  byte // as crypto/tls of the client numbers it; 0: none comes
		reason Reason
	}{
		{"version", nil, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, 70, ReasonNoVersion},
		{"P-521 only", preferredGroups, onlyP521, 40, ReasonNoCipherOrGroup},
		{"P-521 only, TLS 1.2", preferredGroups, func(c *tls.Config) { onlyP521(c); c.MaxVersion = tls.VersionTLS12 }, 40, ReasonNoCipherOrGroup},
		{"cipher", func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		}, func(c *tls.Config) { c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305} }, 40, ReasonNoCipherOrGroup},
		{"ALPN", func(c *tls.Config) { c.NextProtos = []string{"smtp"} }, func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }, 120, ReasonNoALPN},
		{"SNI", func(c *tls.Config) {
			c.Certificates = nil
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
		}, nil, 112, ReasonUnknownSNI},
		{"no client certificate, TLS 1.2", wantClientCert, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, 40, ReasonClientCertificate},
		{"no client certificate, TLS 1.3", wantClientCert, nil, 116, ReasonClientCertificate},
		{"wrong client certificate", wantClientCert, func(c *tls.Config) { c.Certificates = []tls.Certificate{tlstest.Certificate("server")} }, 42, ReasonClientCertificate},
		{"callback", func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("file gone") }
		}, nil, 80, ReasonInternal},
		{"client distrusts us", nil, func(c *tls.Config) { c.RootCAs = nil; c.ServerName = "other.example" }, 0, ReasonPeerAlert},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, ccfg := tlstest.ServerConfig(), tlstest.ClientConfig()
			if test.server != nil {
				test.server(cfg)
			}
			if test.client != nil {
				test.client(ccfg)
			}
			l, end := startLoop(t, cfg)
			client := tls.Client(end, ccfg)
			_, err := client.Read(make([]byte, 1)) // in TLS 1.3 the client's handshake ends before ours
			var op *net.OpError
			if test.alert != 0 && (!errors.As(err, &op) || op.Err.Error() != tls.AlertError(test.alert).Error()) {
				t.Errorf("client got %v, want alert %d", err, test.alert)
			}
			failsWith(t, l, test.reason)
		})
	}
}

func preferredGroups(c *tls.Config) {
	c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256}
}

func onlyP521(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP521} }

func wantClientCert(c *tls.Config) {
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, tlstest.Roots()
}

func TestALPNIsSelectedOrAbsent(t *testing.T) {
	for _, offer := range [][]string{{"smtp"}, nil} {
		cfg, ccfg := tlstest.ServerConfig(), tlstest.ClientConfig()
		cfg.NextProtos, ccfg.NextProtos = []string{"smtp"}, offer
		l, end := startLoop(t, cfg)
		echo(t, tls.Client(end, ccfg), "hello")
		l.do(func() {
			if got := l.conn.ConnectionState().NegotiatedProtocol; got != strings.Join(offer, "") {
				t.Errorf("offered %q, got %q", offer, got)
			}
		})
	}
}

// ends expects an established session to have ended with an error that mentions
// text, for good.
func ends(t *testing.T, l *loop, text string) {
	t.Helper()
	if err := l.wait(); err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("server ended with %v, want %q", err, text)
	}
	for range 3 {
		if n, err := l.conn.Read(make([]byte, 1)); n != 0 || err != l.err {
			t.Errorf("the next read said %d, %v", n, err)
		}
	}
}

func TestTwoKeyUpdatesInOneRecordEndTheSession(t *testing.T) {
	l, end := startLoop(t, tlstest.ServerConfig())
	_, s := attacker(t, end, tls.VersionTLS13)
	if err := writeAll(end, s.Seal(tlstest.TypeHandshake, slices.Concat(tlstest.KeyUpdateMessage, tlstest.KeyUpdateMessage))); err != nil {
		t.Fatal(err)
	}
	ends(t, l, "tls: ")
}

func TestSeventeenKeyUpdatesInARowEndTheSession(t *testing.T) {
	l, end := startLoop(t, tlstest.ServerConfig())
	_, s := attacker(t, end, tls.VersionTLS13)
	for range 17 {
		_ = writeAll(end, s.KeyUpdate()) // the last ones meet a closed wire
	}
	ends(t, l, "too many non-advancing records")
}

func TestKeyUpdatesBetweenDataAreServedAndStopAtTheLinksBound(t *testing.T) {
	_, end := startLoop(t, tlstest.ServerConfig())
	client, s := attacker(t, end, tls.VersionTLS13)
	before := len(end.rx.written())
	const rounds = 100
	for range rounds {
		for range 16 {
			if err := writeAll(end, s.KeyUpdate()); err != nil {
				t.Fatal(err)
			}
		}
		if err := writeAll(end, s.Seal(tlstest.TypeApplication, []byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, client, strings.Repeat("x", rounds))
	if out := len(end.rx.written()) - before; out > rounds*17*32 {
		t.Errorf("%d bytes of output for %d key updates", out, rounds*16)
	}
}

func TestKeyUpdateCutAnywhereIsServed(t *testing.T) {
	_, end := startLoop(t, tlstest.ServerConfig(), oneByte)
	client, s := attacker(t, end, tls.VersionTLS13)
	var in []byte
	for _, part := range [][]byte{tlstest.KeyUpdateMessage[:1], tlstest.KeyUpdateMessage[1:4], tlstest.KeyUpdateMessage[4:]} {
		in = append(in, s.Seal(tlstest.TypeHandshake, part)...)
	}
	s.Rekey()
	if err := writeAll(trickle{end}, append(in, s.Seal(tlstest.TypeApplication, []byte("x"))...)); err != nil {
		t.Fatal(err)
	}
	expect(t, client, "x")
}

func TestSeventeenUselessRecordsEndTheSession(t *testing.T) {
	for _, test := range []struct {
		name    string
		version uint16
		record  func(*tlstest.Sealer) []byte
	}{
		{"empty data", tls.VersionTLS12, func(s *tlstest.Sealer) []byte { return s.Seal(tlstest.TypeApplication, nil) }},
		{"empty data", tls.VersionTLS13, func(s *tlstest.Sealer) []byte { return s.Seal(tlstest.TypeApplication, nil) }},
		{"warnings", tls.VersionTLS12, func(s *tlstest.Sealer) []byte { return s.Seal(tlstest.TypeAlert, []byte{1, 90}) }},
		{"user canceled", tls.VersionTLS13, func(s *tlstest.Sealer) []byte { return s.Seal(tlstest.TypeAlert, []byte{1, 90}) }},
	} {
		t.Run(test.name+"/"+tls.VersionName(test.version), func(t *testing.T) {
			l, end := startLoop(t, tlstest.ServerConfig())
			client, s := attacker(t, end, test.version)
			for range 16 {
				_ = writeAll(end, test.record(s))
			}
			_ = writeAll(end, s.Seal(tlstest.TypeApplication, []byte("x"))) // 16 are forgiven
			expect(t, client, "x")
			for range 17 {
				_ = writeAll(end, test.record(s))
			}
			ends(t, l, "too many ignored records")
		})
	}
}

// CVE-2009-3555: a second ClientHello inside a TLS 1.2 session.
func TestRenegotiationIsRefused(t *testing.T) {
	for name, message := range map[string][]byte{
		"client hello":  append([]byte{1, 0, 0, 41, 3, 3}, append(make([]byte, 33), 0, 2, 0xc0, 0x2b, 1, 0)...),
		"hello request": {0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l, end := startLoop(t, tlstest.ServerConfig())
			_, s := attacker(t, end, tls.VersionTLS12)
			if err := writeAll(end, s.Seal(tlstest.TypeHandshake, message)); err != nil {
				t.Fatal(err)
			}
			ends(t, l, "tls: ")
		})
	}
}

func TestForgedAndOversizedRecordsEndTheSession(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		for name, record := range map[string][]byte{
			"bad record MAC": append([]byte{tlstest.TypeApplication, 3, 3, 0, 40}, make([]byte, 40)...),
			"record":         {tlstest.TypeApplication, 3, 3, 0x48, 1},
			"version":        {tlstest.TypeApplication, 3, 1, 0, 1, 0},
			"tls: ":          []byte("EHLO in clear\r\n"),
		} {
			l, end := startLoop(t, tlstest.ServerConfig())
			attacker(t, end, version)
			if err := writeAll(end, record); err != nil {
				t.Fatal(err)
			}
			ends(t, l, name)
		}
	})
}

// CVE-2026-45185: what follows close_notify is never looked at.
func TestPlaintextBehindCloseNotifyIsNotRead(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		l, end := startLoop(t, tlstest.ServerConfig())
		_, s := attacker(t, end, version)
		in := bytes.Join([][]byte{s.Seal(tlstest.TypeApplication, []byte("x")), s.Seal(tlstest.TypeAlert, []byte{1, 0}), []byte("A\r\n")}, nil)
		if err := writeAll(end, in); err != nil {
			t.Fatal(err)
		}
		if err := l.wait(); err != io.EOF {
			t.Errorf("server ended with %v", err)
		}
	})
}
