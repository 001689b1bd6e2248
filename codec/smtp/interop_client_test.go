package smtp_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"starttlsd/tlsbridge/tlstest"
)

func TestInteropCurlSendsAttachments(t *testing.T) {
	need(t, "curl")
	s := serve(t)
	size := 256 << 10
	if full() {
		size = 20 << 20
	}
	message := attachment(size, 60_000)
	file := write(t, message)
	for name, test := range map[string]struct {
		scheme, port string
		more         []string
	}{
		"STARTTLS":              {"smtp", s.starttls, []string{"--ssl-reqd"}},
		"STARTTLS, TLS 1.2":     {"smtp", s.starttls, []string{"--ssl-reqd", "--tls-max", "1.2"}},
		"implicit TLS":          {"smtps", s.implicit, nil},
		"implicit TLS, TLS 1.2": {"smtps", s.implicit, []string{"--tls-max", "1.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			url := test.scheme + "://" + mailName + ":" + test.port + "/client.example"
			args := append([]string{
				"--disable", "--silent", "--show-error", "--cacert", s.ca,
				"--resolve", mailName + ":" + test.port + ":127.0.0.1", "--url", url,
				"--mail-from", "alice@example.org", "--mail-rcpt", "bob@example.org", "--upload-file", file,
			}, test.more...)
			succeed(t, nil, "curl", args...)
			s.received(t, 1, message)
		})
	}
}

// swaks is the arguments that send tricky to a listener. The line end at the end
// is left to swaks, which puts one there in any case.
func swaks(t *testing.T, port string, more ...string) []string {
	t.Helper()
	file := write(t, bytes.TrimSuffix(tricky, []byte("\r\n")))
	return append([]string{
		"--server", "127.0.0.1", "--port", port, "--helo", "client.example",
		"--from", "alice@example.org", "--to", "bob@example.org", "--data", "@" + file,
	}, more...)
}

func TestInteropSwaksSendsMail(t *testing.T) {
	needSwaks(t)
	s := serve(t)
	for name, test := range map[string]struct {
		port string
		more []string
		want string
	}{
		"STARTTLS":            {s.starttls, []string{"--tls"}, "TLS started"},
		"STARTTLS, pipelined": {s.starttls, []string{"--tls", "--pipeline"}, "TLS started"},
		"STARTTLS, TLS 1.2":   {s.starttls, []string{"--tls", "--tls-protocol", "tlsv1_2"}, "TLS started with cipher TLSv1.2"},
		"optional, offered":   {s.starttls, []string{"--tls-optional-strict"}, "TLS started"},
		"implicit TLS":        {s.implicit, []string{"--tls-on-connect"}, "TLS started"},
		"verified":            {s.starttls, []string{"--tls", "--tls-verify", "--tls-ca-path", s.ca}, `TLS peer DN="/CN=` + mailName},
		"first certificate":   {s.starttls, []string{"--tls", "--tls-sni", mailName}, `TLS peer DN="/CN=` + mailName},
		"second certificate":  {s.starttls, []string{"--tls", "--tls-sni", otherName}, `TLS peer DN="/CN=` + otherName},
		"implicit TLS, SNI":   {s.implicit, []string{"--tls-on-connect", "--tls-sni", otherName}, `TLS peer DN="/CN=` + otherName},
	} {
		t.Run(name, func(t *testing.T) {
			output := succeed(t, nil, "swaks", swaks(t, test.port, test.more...)...)
			if !strings.Contains(output, test.want) {
				t.Errorf("swaks does not say %q:\n%s", test.want, output)
			}
			s.received(t, 1, tricky)
		})
	}
}

func TestInteropSwaksIsRefusedInClear(t *testing.T) {
	needSwaks(t)
	s := serve(t)
	output, ok := run(t, nil, "swaks", swaks(t, s.starttls)...)
	if ok || !strings.Contains(output, "530 5.7.0") {
		t.Errorf("mail in clear is not refused:\n%s", output)
	}
	s.received(t, 0, nil)
}

func TestInteropSwaksClientCertificates(t *testing.T) {
	needSwaks(t)
	need(t, "openssl")
	cert, key := tlstest.WritePEM(t.TempDir(), tlstest.ClientCertificate("client.example"))
	ours := []string{"--tls-cert", cert, "--tls-key", key}
	stranger := strangersCertificate(t)
	versions := []string{"tlsv1_3"}
	if full() {
		versions = append(versions, "tlsv1_2")
	}
	for _, test := range []struct {
		name, clientAuth string
		present          []string
		refused          bool
	}{
		{"required and given", "require", ours, false},
		{"required and missing", "require", nil, true},
		{"required, from another CA", "require", stranger, true},
		{"verified and given", "verify", ours, false},
		{"verified and missing", "verify", nil, false},
		{"verified, from another CA", "verify", stranger, true},
		{"requested, from another CA", "request", stranger, false},
		{"not asked for", "none", stranger, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, "client_auth: "+test.clientAuth)
			for _, version := range versions {
				for port, mode := range map[string]string{s.starttls: "--tls", s.implicit: "--tls-on-connect"} {
					args := slices.Concat(swaks(t, port, mode, "--tls-protocol", version), test.present)
					output, ok := run(t, nil, "swaks", args...)
					if ok == test.refused {
						t.Fatalf("%s %s: refused is %t, want %t:\n%s", version, mode, !ok, test.refused, output)
					}
					if !test.refused {
						s.received(t, 1, tricky)
					}
				}
			}
			if test.refused {
				s.logged(t, "reason=client_certificate")
			}
			s.received(t, 0, nil)
		})
	}
}

// strangersCertificate is swaks's arguments for a certificate that no authority
// we know has signed.
func strangersCertificate(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	succeed(t, nil, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
		"-nodes", "-subj", "/CN=client.example", "-keyout", key, "-out", cert)
	return []string{"--tls-cert", cert, "--tls-key", key}
}

// smtplibScript sends the message on standard input three times in one session.
const smtplibScript = `
import smtplib, ssl, sys
mode, port, ca = sys.argv[1:]
message = sys.stdin.buffer.read()
context = ssl.create_default_context(cafile=ca)
if mode == "starttls":
    smtp = smtplib.SMTP("127.0.0.1", int(port), "client.example", timeout=30)
    smtp.starttls(context=context)
else:
    smtp = smtplib.SMTP_SSL("127.0.0.1", int(port), "client.example", timeout=30, context=context)
smtp.ehlo()
assert not smtp.has_extn("starttls"), "STARTTLS is offered inside TLS"
for sender, options in [
    ("alice@example.org", []),
    ("alice@example.org", ["BODY=8BITMIME", "SIZE=%d" % len(message)]),
    ("\u00e5lice@ex\u00e4mple.org", ["SMTPUTF8", "BODY=8BITMIME"]),
]:
    refused = smtp.sendmail(sender, ["bob@example.org", "carol@example.org"], message, options)
    assert not refused, refused
try:
    smtp.sendmail("alice@example.org", ["b\u00f8b@example.org"], message, ["BODY=8BITMIME"])
except smtplib.SMTPRecipientsRefused as e:
    assert e.recipients["b\u00f8b@example.org"][0] == 553, e.recipients
else:
    raise AssertionError("a UTF-8 address was taken without SMTPUTF8")
smtp.quit()
`

func TestInteropPythonSendsMail(t *testing.T) {
	need(t, "python3")
	s := serve(t)
	for mode, port := range map[string]string{"starttls": s.starttls, "implicit": s.implicit} {
		t.Run(mode, func(t *testing.T) {
			succeed(t, tricky, "python3", "-c", smtplibScript, mode, port, s.ca)
			s.received(t, 3, tricky)
		})
	}
}
