package tlsbridge

const (
	recordHeader    = 5            // RFC 8446 §5.1
	recordHandshake = 22           // its type for handshake messages
	maxCiphertext   = 16384 + 2048 // RFC 5246 §6.2.3; crypto/tls refuses more at the sight of the header
	helloHeader     = 4            // type and length of a handshake message, RFC 8446 §4
	clientHello     = 1            // its type
	maxHandshake    = 1 << 16      // the longest one that crypto/tls takes
)

// length returns the body length that a record header announces.
func length(header []byte) int { return int(header[3])<<8 | int(header[4]) }

// recordReady reports whether crypto/tls can go on with b without waiting: it
// holds a whole record, or a header that will be refused as it stands.
func recordReady(b []byte) bool {
	return len(b) >= recordHeader && (length(b) > maxCiphertext || len(b) >= recordHeader+length(b))
}

// helloScan finds the end of the ClientHello, which may come in many records.
// It looks at each record once, however the bytes are cut.
type helloScan struct {
	next int               // offset of the first record not looked at
	got  int               // bytes of the message in the records before it
	head [helloHeader]byte // the first of them
}

type verdict uint8

const (
	helloPartial  verdict = iota // more has to come
	helloComplete                // or hopeless in a way for which crypto/tls has an alert
	helloNotTLS                  // crypto/tls would end this without an alert
)

// scan looks at b, all that the peer has sent so far.
func (s *helloScan) scan(b []byte) verdict {
	// The rest of a record header may never come: a text protocol waits for an answer.
	if b[0] != recordHandshake || len(b) > 1 && b[1] >= 0x10 {
		return helloNotTLS
	}
	for {
		record := b[s.next:]
		if len(record) < recordHeader {
			return helloPartial
		}
		n := length(record)
		if record[0] != recordHandshake || n == 0 || n > maxCiphertext {
			return helloComplete
		}
		if len(record) < recordHeader+n {
			return helloPartial
		}
		if s.got < helloHeader {
			copy(s.head[s.got:], record[recordHeader:recordHeader+n])
		}
		s.got += n
		s.next += recordHeader + n
		if s.got < helloHeader {
			continue
		}
		message := int(s.head[1])<<16 | int(s.head[2])<<8 | int(s.head[3])
		if s.head[0] != clientHello || message > maxHandshake || s.got >= helloHeader+message {
			return helloComplete
		}
	}
}
