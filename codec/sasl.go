package codec

import (
	"bytes"
	"strings"
)

// PassesSASL reports whether name is that of a SASL mechanism (RFC 4422 §3.1) that
// works between a client and a backend when TLS ends in between. One with channel
// binding does not, since the backend's channel is another; and with EXTERNAL the
// backend could take the client for us.
func PassesSASL(name []byte) bool {
	if len(name) == 0 || len(name) > 20 {
		return false
	}
	upper := Upper(name)
	for _, c := range []byte(upper) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return upper != "EXTERNAL" && !strings.HasSuffix(upper, "-PLUS")
}

// PassSASL is those of the mechanisms that pass.
func PassSASL(mechanisms []byte) []byte {
	var passed [][]byte
	for m := range bytes.FieldsSeq(mechanisms) {
		if PassesSASL(m) {
			passed = append(passed, m)
		}
	}
	return bytes.Join(passed, []byte{' '})
}

// IsSASLResponse reports whether line is what a client may say in a SASL exchange:
// base64, or "*", which cancels it (RFC 9051 §6.2.2, RFC 5034 §4, RFC 4643 §2.4).
// A command is not, whatever the backend takes it for.
func IsSASLResponse(line []byte) bool {
	if string(line) == "*" {
		return true
	}
	for _, c := range line {
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '+' && c != '/' && c != '=' {
			return false
		}
	}
	return true
}
