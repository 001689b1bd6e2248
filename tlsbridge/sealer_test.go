package tlsbridge

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

const (
	typeAlert       = 21
	typeHandshake   = 22
	typeApplication = 23
)

// sealer makes encrypted records that no client of crypto/tls would send. It
// takes over the sending side of a client that has not sent any data yet.
type sealer struct {
	t       testing.TB
	version uint16
	aead    cipher.AEAD
	iv      []byte
	secret  []byte // TLS 1.3: client_application_traffic_secret
	seq     uint64
}

// attacker completes a handshake and returns the client, for reading, and a
// sealer for its next records.
func attacker(t testing.TB, end *wireEnd, version uint16) (*tls.Conn, *sealer) {
	end.rx.mu.Lock()
	end.rx.keep = true
	end.rx.mu.Unlock()
	var keys bytes.Buffer
	cfg := clientConfig(version)
	cfg.KeyLogWriter = &keys
	cfg.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	client := tls.Client(end, cfg)
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	s := &sealer{t: t, version: version}
	if version == tls.VersionTLS13 {
		if client.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
			t.Skip("no AES hardware: another cipher was chosen")
		}
		_, s.secret = keyLog(t, keys.String(), "CLIENT_TRAFFIC_SECRET_0")
		s.rekey()
		return client, s
	}
	clientRandom, master := keyLog(t, keys.String(), "CLIENT_RANDOM")
	serverRandom := end.rx.written()[recordHeader+helloHeader+2:][:32]
	block := prf12(master, "key expansion", append(serverRandom, clientRandom...), 40)
	s.setKey(block[:16])
	s.iv, s.seq = block[32:36], 1 // Finished was the first
	return client, s
}

func keyLog(t testing.TB, log, label string) (random, secret []byte) {
	for line := range strings.Lines(log) {
		if f := strings.Fields(line); f[0] == label {
			random, _ = hex.DecodeString(f[1])
			secret, _ = hex.DecodeString(f[2])
			return random, secret
		}
	}
	t.Fatalf("no %s in the key log", label)
	return nil, nil
}

// prf12 is P_SHA256 of RFC 5246 §5.
func prf12(secret []byte, label string, seed []byte, n int) []byte {
	mac := func(parts ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	seed = append([]byte(label), seed...)
	var out []byte
	for a := mac(seed); len(out) < n; a = mac(a) {
		out = append(out, mac(a, seed)...)
	}
	return out[:n]
}

// expand is HKDF-Expand-Label of RFC 8446 §7.1 with an empty context.
func (s *sealer) expand(label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(info, byte(6+len(label))), "tls13 "+label...)
	out, err := hkdf.Expand(sha256.New, s.secret, string(append(info, 0)), n)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *sealer) rekey() {
	s.setKey(s.expand("key", 16))
	s.iv, s.seq = s.expand("iv", 12), 0
}

func (s *sealer) setKey(key []byte) {
	block, err := aes.NewCipher(key)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		s.t.Fatal(err)
	}
}

// seal returns one encrypted record.
func (s *sealer) seal(typ byte, data []byte) []byte {
	seq := binary.BigEndian.AppendUint64(nil, s.seq)
	s.seq++
	if s.version == tls.VersionTLS13 {
		nonce := slices.Clone(s.iv)
		for i, b := range seq {
			nonce[4+i] ^= b
		}
		inner := append(slices.Clone(data), typ)
		header := []byte{typeApplication, 3, 3, 0, 0}
		binary.BigEndian.PutUint16(header[3:], uint16(len(inner)+16))
		return s.aead.Seal(header, nonce, inner, header)
	}
	additional := append(slices.Clone(seq), typ, 3, 3, 0, 0)
	binary.BigEndian.PutUint16(additional[11:], uint16(len(data)))
	record := []byte{typ, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(record[3:], uint16(8+len(data)+16))
	record = append(record, seq...)
	return s.aead.Seal(record, append(slices.Clone(s.iv), seq...), data, additional)
}

// keyUpdate returns a KeyUpdate record that asks for ours, and changes the key. RFC 8446 §4.6.3.
func (s *sealer) keyUpdate() []byte {
	record := s.seal(typeHandshake, keyUpdateMessage)
	s.secret = s.expand("traffic upd", 32)
	s.rekey()
	return record
}

var keyUpdateMessage = []byte{24, 0, 0, 1, 1}
