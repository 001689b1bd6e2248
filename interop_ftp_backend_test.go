package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

// secureVsftpd has TLS of its own, for everything, and demands of data connections that
// they resume the session of the control connection.
const secureVsftpd = `
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=YES
force_anon_data_ssl=YES
require_ssl_reuse=YES
strict_ssl_read_eof=YES
strict_ssl_write_shutdown=NO
ssl_ciphers=HIGH
debug_ssl=YES
rsa_cert_file=%s
rsa_private_key_file=%s`

// To a server with TLS the data connections are under TLS as well, and resume the
// session of ours to it.
func TestInteropFTPToAServerWithTLS(t *testing.T) {
	enginetest.Need(t, "curl", "lftp")
	for scheme, more := range map[string]string{"starttls": "", "tls": "\nimplicit_ssl=YES"} {
		t.Run(scheme, func(t *testing.T) {
			cert, key := tlstest.WritePEM(t.TempDir(), tlstest.Certificate("127.0.0.1"))
			s := startVsftpd(t, fmt.Sprintf(secureVsftpd, cert, key)+more)
			f := frontFTPWith(t, s, scheme+"://127.0.0.1:"+s.port, `, backend_options: {ca: "CA"}`)
			f.curlSuite(t, "ftps://127.0.0.1:"+f.implicit+"/", nil)
			f.mirror(t, 20, "ftp://127.0.0.1:"+f.explicit, "", "set ftp:passive-mode no")
			f.clearOverTLS(t)
			log := s.log()
			if strings.Count(log, ", reused") < 40 || strings.Contains(log, "No SSL session reuse") {
				t.Errorf("%d data connections have resumed", strings.Count(log, ", reused"))
			}
		})
	}
}

// clearOverTLS downloads in clear: the server's side is under TLS all the same.
func (f *ftpFront) clearOverTLS(t *testing.T) {
	t.Helper()
	content := noise(5, 200_000)
	f.put("file", content)
	down := t.TempDir() + "/down"
	succeed(t, "", []string{"curl", "-sS", "-u", f.user + ":" + f.password, "--max-time", "20", "ftp://127.0.0.1:" + f.clear + "/file", "-o", down})
	if !bytes.Equal(read(t, down), content) {
		t.Error("another file came")
	}
}

// A server whose certificate is not trusted is not used, and says nothing to the client.
func TestInteropFTPToAServerThatIsNotTrusted(t *testing.T) {
	enginetest.Need(t, "curl")
	cert, key := tlstest.WritePEM(t.TempDir(), tlstest.Certificate("elsewhere.example"))
	s := startVsftpd(t, fmt.Sprintf(secureVsftpd, cert, key))
	f := frontFTPWith(t, s, "starttls://127.0.0.1:"+s.port, `, backend_options: {ca: "CA"}`)
	out, err := enginetest.Program(t, "", f.curl("-v", "ftp://127.0.0.1:"+f.explicit+"/")...)
	if err == nil || !strings.Contains(out, "< 421 ") {
		t.Errorf("%v %s", err, out)
	}
	if strings.Contains(s.log(), "PASS") {
		t.Error("the server has got the password")
	}
}
