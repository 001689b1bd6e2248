package smtp_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// sClient is the arguments of openssl that connect to the listener with
// STARTTLS and verify its certificate.
func (s *server) sClient(more ...string) []string {
	return append([]string{"s_client", "-starttls", "smtp", "-connect", "127.0.0.1:" + s.starttls,
		"-CAfile", s.ca, "-verify_return_error"}, more...)
}

// sClientImplicit is the same for the listener with implicit TLS.
func (s *server) sClientImplicit(more ...string) []string {
	return append([]string{"s_client", "-connect", "127.0.0.1:" + s.implicit,
		"-CAfile", s.ca, "-verify_return_error"}, more...)
}

// sendMail has the server take a message from s_client. The commands are in
// lower case because s_client takes a Q or an R at the start of a line as its own.
func (d *dialogue) sendMail(t *testing.T, s *server) {
	t.Helper()
	d.ask("ehlo client.example", "250 CHUNKING")
	d.ask("mail from:<alice@example.org>", "250 2.1.0")
	d.ask("rcpt to:<bob@example.org>", "250 2.1.5")
	d.ask("data", "354 ")
	d.ask("Subject: by hand\r\n\r\n..dot\r\n.", "250 2.0.0")
	s.received(t, 1, []byte("Subject: by hand\r\n\r\n.dot\r\n"))
}

func TestInteropOpenSSLSendsMail(t *testing.T) {
	need(t, "openssl")
	s := serve(t)
	for name, test := range map[string]struct {
		args []string
		want string // what openssl says of the session
	}{
		"TLS 1.2":          {s.sClient("-tls1_2"), "New, TLSv1.2, Cipher is ECDHE-ECDSA-"},
		"TLS 1.3":          {s.sClient("-tls1_3"), "New, TLSv1.3, Cipher is TLS_"},
		"implicit TLS 1.2": {s.sClientImplicit("-tls1_2"), "New, TLSv1.2, Cipher is ECDHE-ECDSA-"},
		"implicit TLS 1.3": {s.sClientImplicit("-tls1_3"), "New, TLSv1.3, Cipher is TLS_"},
		"ChaCha20":         {s.sClient("-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"), "Cipher is TLS_CHACHA20_POLY1305_SHA256"},
		"ALPN of SMTP":     {s.sClient("-alpn", "smtp"), "ALPN protocol: smtp"},
		"small records":    {s.sClient("-tls1_2", "-max_send_frag", "512", "-split_send_frag", "512"), "New, TLSv1.2"},
	} {
		t.Run(name, func(t *testing.T) {
			d := talk(t, "openssl", test.args...)
			d.expect(test.want)
			d.expect("Verify return code: 0 (ok)")
			d.sendMail(t, s)
			d.ask("quit", "221 2.0.0")
			d.end()
		})
	}
}

func TestInteropOpenSSLChoosesTheGroup(t *testing.T) {
	need(t, "openssl")
	s := serve(t)
	for offer, want := range map[string]string{ // P-256 is in each for the certificate's sake
		"X25519:P-256":       "X25519",
		"P-256:X25519":       "CurveP256",
		"P-384:X25519:P-256": "X25519", // after a HelloRetryRequest
		"P-521:P-256":        "CurveP256",
	} {
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			t.Run(offer+version, func(t *testing.T) {
				host := strings.ReplaceAll(offer, ":", ".") + version + ".example"
				d := talk(t, "openssl", s.sClient(version, "-groups", offer, "-servername", host)...)
				d.ask("quit", "221 2.0.0")
				d.end()
				s.logged(t, "group="+want+" sni="+host)
			})
		}
	}
}

func TestInteropOpenSSLResumesSessions(t *testing.T) {
	need(t, "openssl")
	s := serve(t)
	for name, connect := range map[string]func(...string) []string{
		"STARTTLS": s.sClient, "implicit TLS": s.sClientImplicit,
	} {
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			t.Run(name+version, func(t *testing.T) {
				session := filepath.Join(t.TempDir(), "session.pem")
				for _, visit := range []struct{ flag, want string }{
					{"-sess_out", "New, TLSv1."},
					{"-sess_in", "Reused, TLSv1."},
				} {
					d := talk(t, "openssl", connect(version, visit.flag, session)...)
					d.expect(visit.want)
					d.sendMail(t, s)
					d.ask("quit", "221 2.0.0")
					d.end()
				}
			})
		}
	}
	s.logged(t, "resumed=true")
}

func TestInteropOpenSSLUpdatesKeys(t *testing.T) {
	need(t, "openssl")
	s := serve(t)
	d := talk(t, "openssl", s.sClient("-tls1_3")...)
	d.ask("ehlo client.example", "250 CHUNKING")
	for _, update := range []string{"K", "k", "K", "K"} { // K asks the server to update its own too
		d.ask(update, "KEYUPDATE")
		d.ask("noop", "250 2.0.0")
	}
	d.ask("mail from:<alice@example.org>", "250 2.1.0")
	d.ask("rcpt to:<bob@example.org>", "250 2.1.5")
	d.ask("data", "354 ")
	d.say("Subject: new keys\r\n\r\none")
	eventually(t, "the first line is stored", func() bool { return s.storing("one\r\n") })
	d.ask("K", "KEYUPDATE") // in the middle of a message, while the connection is lent
	d.say("two")
	d.ask(".", "250 2.0.0")
	d.ask("quit", "221 2.0.0")
	d.end()
	s.received(t, 1, []byte("Subject: new keys\r\n\r\none\r\ntwo\r\n"))
}

func TestInteropOpenSSLMayNotRenegotiate(t *testing.T) {
	need(t, "openssl")
	s := serve(t)
	d := talk(t, "openssl", s.sClient("-tls1_2")...)
	d.ask("noop", "250 2.0.0")
	d.ask("R", "RENEGOTIATING")
	if output := d.end(); !strings.Contains(output, "alert unexpected message") {
		t.Errorf("the renegotiation was not refused:\n%s", output)
	}
	s.logged(t, "reason=tls_error")
}

func TestInteropOpenSSLIsGivenTheCertificateItNames(t *testing.T) {
	need(t, "openssl")
	s := serve(t)
	for name, test := range map[string]struct {
		asks []string
		want string
	}{
		"the second":       {[]string{"-servername", otherName}, otherName},
		"in upper case":    {[]string{"-servername", strings.ToUpper(otherName)}, otherName},
		"the first":        {[]string{"-servername", mailName}, mailName},
		"an unknown name":  {[]string{"-servername", "unknown.example"}, mailName},
		"no name":          {[]string{"-noservername"}, mailName},
		"with TLS 1.2":     {[]string{"-servername", otherName, "-tls1_2"}, otherName},
		"name and address": {[]string{"-servername", otherName, "-verify_hostname", otherName}, otherName},
	} {
		t.Run(name, func(t *testing.T) {
			for _, connect := range []func(...string) []string{s.sClient, s.sClientImplicit} {
				d := talk(t, "openssl", connect(test.asks...)...)
				d.expect("subject=CN = " + test.want + "\n")
				d.ask("quit", "221 2.0.0")
				d.end()
			}
		})
	}
}

// TestInteropOpenSSLIsRefused wants the alert that names the trouble, so that
// the other side's operator can find it.
func TestInteropOpenSSLIsRefused(t *testing.T) {
	need(t, "openssl")
	for name, test := range map[string]struct {
		settings []string
		args     []string
		alert    string
		reason   string // in the server's log
	}{
		"an unknown name, strict": {
			[]string{"strict_sni: true"}, []string{"-servername", "unknown.example"},
			"SSL alert number 112", "unknown_sni",
		},
		"ALPN without smtp":    {nil, []string{"-alpn", "h2,http/1.1"}, "SSL alert number 120", "no_alpn"},
		"P-521 alone":          {nil, []string{"-groups", "P-521"}, "SSL alert number 40", "no_cipher_or_group"},
		"P-521 alone, TLS 1.2": {nil, []string{"-tls1_2", "-groups", "P-521"}, "SSL alert number 40", "no_cipher_or_group"},
		"RSA key exchange":     {nil, []string{"-tls1_2", "-cipher", "AES128-GCM-SHA256"}, "SSL alert number 40", "no_cipher_or_group"},
		"CBC, intermediate":    {nil, []string{"-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"}, "SSL alert number 40", "no_cipher_or_group"},
		"TLS 1.1":              {nil, []string{"-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"}, "SSL alert number 70", "no_version"},
		"TLS 1.2, modern":      {[]string{"profile: modern"}, []string{"-tls1_2"}, "SSL alert number 70", "no_version"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, test.settings...)
			for _, args := range [][]string{s.sClient(test.args...), s.sClientImplicit(test.args...)} {
				output, ok := run(t, nil, "openssl", args...)
				if ok || !strings.Contains(output, test.alert) {
					t.Errorf("want failure with %q:\n%s", test.alert, output)
				}
			}
			s.logged(t, "reason="+test.reason)
		})
	}
}

// A connection ends with a close_notify of each side, or it could have been cut.
func TestInteropOpenSSLIsToldOfTheEnd(t *testing.T) {
	need(t, "openssl")
	s := serve(t)
	d := talk(t, "openssl", s.sClient("-tls1_2", "-msg")...)
	d.ask("quit", "221 2.0.0")
	if output := d.end(); strings.Count(output, "close_notify") < 2 {
		t.Errorf("close_notify is not said both ways:\n%s", output)
	}
}
