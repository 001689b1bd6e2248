package tlstest

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

// Record types, RFC 8446 §5.1.
const (
	TypeAlert       = 21
	TypeHandshake   = 22
	TypeApplication = 23
)

// Sealer makes encrypted records that crypto/tls would not send. It takes over the
// sending side of a client, or of a server, that has not sent any data yet.
type Sealer struct {
	t       testing.TB
	version uint16
	aead    cipher.AEAD
	iv      []byte
	secret  []byte // TLS 1.3: the application_traffic_secret of its side
	seq     uint64
}

// SealerConfig prepares cfg, a client's, for NewSealer. keys gets its key log.
func SealerConfig(cfg *tls.Config, keys *bytes.Buffer) {
	cfg.KeyLogWriter = keys
	cfg.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
}

// NewServerSealer is NewSealer for the sending side of a server of TLS 1.3 that has
// sent no data and no ticket. keys is that of the client, as state is.
func NewServerSealer(t testing.TB, state tls.ConnectionState, keys string) *Sealer {
	t.Helper()
	return newSealer13(t, state, keys, "SERVER_TRAFFIC_SECRET_0")
}

// NewSealer takes over from a client that has just finished a handshake of the
// given version. serverRandom is needed for TLS 1.2 only. It skips the test where
// the hardware makes crypto/tls prefer a cipher that a Sealer does not have.
func NewSealer(t testing.TB, state tls.ConnectionState, keys string, serverRandom []byte) *Sealer {
	t.Helper()
	if state.Version == tls.VersionTLS13 {
		return newSealer13(t, state, keys, "CLIENT_TRAFFIC_SECRET_0")
	}
	s := &Sealer{t: t, version: state.Version}
	clientRandom, master := keyLog(t, keys, "CLIENT_RANDOM")
	block := prf12(master, "key expansion", append(slices.Clone(serverRandom), clientRandom...), 40)
	s.setKey(block[:16])
	s.iv, s.seq = block[32:36], 1 // Finished was the first
	return s
}

func newSealer13(t testing.TB, state tls.ConnectionState, keys, label string) *Sealer {
	t.Helper()
	if state.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("no AES hardware: another cipher was chosen")
	}
	s := &Sealer{t: t, version: state.Version}
	_, s.secret = keyLog(t, keys, label)
	s.rekey()
	return s
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
func (s *Sealer) expand(label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(info, byte(6+len(label))), "tls13 "+label...)
	out, err := hkdf.Expand(sha256.New, s.secret, string(append(info, 0)), n)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *Sealer) rekey() {
	s.setKey(s.expand("key", 16))
	s.iv, s.seq = s.expand("iv", 12), 0
}

func (s *Sealer) setKey(key []byte) {
	block, err := aes.NewCipher(key)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		s.t.Fatal(err)
	}
}

// Seal returns one encrypted record.
func (s *Sealer) Seal(typ byte, data []byte) []byte {
	seq := binary.BigEndian.AppendUint64(nil, s.seq)
	s.seq++
	if s.version == tls.VersionTLS13 {
		nonce := slices.Clone(s.iv)
		for i, b := range seq {
			nonce[4+i] ^= b
		}
		inner := append(slices.Clone(data), typ)
		header := []byte{TypeApplication, 3, 3, 0, 0}
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

// KeyUpdate returns a KeyUpdate record that asks for ours, and changes the key. RFC 8446 §4.6.3.
func (s *Sealer) KeyUpdate() []byte {
	record := s.Seal(TypeHandshake, KeyUpdateMessage)
	s.Rekey()
	return record
}

// Rekey goes on with the next traffic secret, as behind a KeyUpdate. RFC 8446 §7.2.
func (s *Sealer) Rekey() {
	s.secret = s.expand("traffic upd", 32)
	s.rekey()
}

// KeyUpdateMessage is the handshake message that asks for a KeyUpdate in return.
var KeyUpdateMessage = []byte{24, 0, 0, 1, 1}
