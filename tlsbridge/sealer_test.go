package tlsbridge

import (
	"bytes"
	"crypto/tls"
	"testing"

	"starttlsd/tlsbridge/tlstest"
)

// attacker completes a handshake and returns the client, for reading, and a
// sealer for its next records.
func attacker(t testing.TB, end *wireEnd, version uint16) (*tls.Conn, *tlstest.Sealer) {
	end.rx.mu.Lock()
	end.rx.keep = true
	end.rx.mu.Unlock()
	var keys bytes.Buffer
	cfg := clientConfig(version)
	tlstest.SealerConfig(cfg, &keys)
	client := tls.Client(end, cfg)
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	serverRandom := end.rx.written()[recordHeader+helloHeader+2:][:32]
	return client, tlstest.NewSealer(t, client.ConnectionState(), keys.String(), serverRandom)
}
