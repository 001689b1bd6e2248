package smtp_test

import (
	"encoding/xml"
	"slices"
	"strings"
	"testing"
)

// gnutls is the arguments of gnutls-cli that verify the server as mailName.
func (s *server) gnutls(port string, more ...string) []string {
	return append([]string{"--port", port, "--x509cafile", s.ca, "--sni-hostname", mailName,
		"--verify-hostname", mailName, "127.0.0.1"}, more...)
}

func TestInteropGnuTLSSendsMail(t *testing.T) {
	need(t, "gnutls-cli")
	s := serve(t)
	starttls := []string{"--starttls-proto=smtp"}
	tls12 := []string{"--priority=NORMAL:-VERS-TLS1.3"}
	resume := []string{"--resume", "--waitresumption"}
	for name, test := range map[string]struct {
		args []string
		want []string // what gnutls-cli says of the session
	}{
		"STARTTLS":                  {s.gnutls(s.starttls, starttls...), []string{"Description: (TLS1.3"}},
		"STARTTLS, TLS 1.2":         {s.gnutls(s.starttls, slices.Concat(starttls, tls12)...), []string{"Description: (TLS1.2"}},
		"STARTTLS, resumed":         {s.gnutls(s.starttls, slices.Concat(starttls, resume)...), []string{"(TLS1.3", "a resumed session"}},
		"TLS 1.2, resumed":          {s.gnutls(s.starttls, slices.Concat(starttls, tls12, resume)...), []string{"(TLS1.2", "a resumed session"}},
		"implicit TLS":              {s.gnutls(s.implicit), []string{"Description: (TLS1.3"}},
		"implicit TLS, TLS 1.2":     {s.gnutls(s.implicit, tls12...), []string{"Description: (TLS1.2"}},
		"implicit TLS, resumed":     {s.gnutls(s.implicit, resume...), []string{"(TLS1.3", "a resumed session"}},
		"after a HelloRetryRequest": {s.gnutls(s.starttls, slices.Concat(starttls, []string{"--single-key-share", "--priority=NORMAL:-GROUP-ALL:+GROUP-SECP384R1:+GROUP-X25519"})...), []string{"(ECDHE-X25519)"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := talk(t, "gnutls-cli", test.args...)
			d.expect("The certificate is trusted")
			for _, want := range test.want {
				d.expect(want)
			}
			d.expect("Simple Client Mode")
			d.sendMail(t, s)
			d.ask("QUIT", "221 2.0.0")
			d.end()
		})
	}
}

func TestInteropGnuTLSUpdatesKeys(t *testing.T) {
	need(t, "gnutls-cli")
	s := serve(t)
	d := talk(t, "gnutls-cli", s.gnutls(s.starttls, "--starttls-proto=smtp", "--inline-commands")...)
	d.expect("Simple Client Mode")
	d.ask("NOOP", "250 2.0.0")
	d.enter("^rekey^\n") // a command to gnutls-cli
	d.expect("Rekey was completed")
	d.sendMail(t, s)
	d.ask("QUIT", "221 2.0.0")
	d.end()
}

// scan is what sslscan has found.
type scan struct {
	Protocols []struct {
		Type    string `xml:"type,attr"`
		Version string `xml:"version,attr"`
		Enabled bool   `xml:"enabled,attr"`
	} `xml:"ssltest>protocol"`
	Ciphers []struct {
		Name     string `xml:"cipher,attr"`
		Version  string `xml:"sslversion,attr"`
		Strength string `xml:"strength,attr"`
	} `xml:"ssltest>cipher"`
	Heartbleed []struct {
		Vulnerable bool `xml:"vulnerable,attr"`
	} `xml:"ssltest>heartbleed"`
	Compression struct {
		Supported bool `xml:"supported,attr"`
	} `xml:"ssltest>compression"`
	Renegotiation struct {
		Supported bool `xml:"supported,attr"`
	} `xml:"ssltest>renegotiation"`
	Groups []struct {
		Name string `xml:"name,attr"`
	} `xml:"ssltest>group"`
}

func TestInteropSSLScanFindsNothingWeak(t *testing.T) {
	need(t, "sslscan")
	for profile, want := range map[string][]string{
		"intermediate": {"tls1.2", "tls1.3"},
		"modern":       {"tls1.3"},
	} {
		t.Run(profile, func(t *testing.T) {
			s := serve(t, "profile: "+profile)
			for name, args := range map[string][]string{
				"STARTTLS":     {"--starttls-smtp", "127.0.0.1:" + s.starttls},
				"implicit TLS": {"127.0.0.1:" + s.implicit},
			} {
				t.Run(name, func(t *testing.T) {
					report := succeed(t, nil, "sslscan", append([]string{"--no-colour", "--xml=-"}, args...)...)
					var found scan
					if err := xml.Unmarshal([]byte(report), &found); err != nil {
						t.Fatalf("%v in %s", err, report)
					}
					found.check(t, want)
					if t.Failed() {
						t.Log(report)
					}
				})
			}
		})
	}
}

// check wants the versions, and of them nothing but forward secrecy with AEAD.
func (f *scan) check(t *testing.T, versions []string) {
	t.Helper()
	var enabled []string
	for _, p := range f.Protocols {
		if p.Enabled {
			enabled = append(enabled, p.Type+p.Version)
		}
	}
	if !slices.Equal(enabled, versions) {
		t.Errorf("versions %v, want %v", enabled, versions)
	}
	if len(f.Ciphers) < 3*len(versions) || len(f.Groups) < 2*len(versions) {
		t.Errorf("%d ciphers and %d groups were found, which is too few to be the scan of a server", len(f.Ciphers), len(f.Groups))
	}
	for _, c := range f.Ciphers {
		forwardSecret := c.Version == "TLSv1.3" || strings.HasPrefix(c.Name, "ECDHE-")
		aead := strings.Contains(c.Name, "GCM") || strings.Contains(c.Name, "CHACHA20")
		if !forwardSecret || !aead || c.Strength != "strong" && c.Strength != "acceptable" {
			t.Errorf("weak cipher: %+v", c)
		}
	}
	for _, g := range f.Groups {
		if g.Name != "x25519" && !strings.HasPrefix(g.Name, "secp256r1") {
			t.Errorf("group %q is more than one of ours", g.Name)
		}
	}
	for _, h := range f.Heartbleed {
		if h.Vulnerable {
			t.Error("vulnerable to Heartbleed")
		}
	}
	if f.Compression.Supported || f.Renegotiation.Supported {
		t.Errorf("compression is %t, renegotiation %t", f.Compression.Supported, f.Renegotiation.Supported)
	}
}
