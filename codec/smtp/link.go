package smtp

import "starttlsd/codec"

// link is all that belongs to the connection with a backend.
type link struct {
	waiting codec.Pipeline[kind] // commands, and ends of content, without a reply yet
	line    codec.Line           // of the backend
	dot     codec.Dot            // of DATA
	name    string               // of the client, in the EHLO or HELO that is under way
	hello   hello                // which of them it is; noHello before Forward when it is another command
	list    []string             // the reply to EHLO so far, as the client gets it
	fault   string               // what was wrong with the backend

	rejection *reply // of the client's name, by the backend; nil: none

	code     int // of the reply that has begun; 0: none has
	octets   int // of it
	accepted int // recipients since MAIL
	answered int // replies to the present message, of which LMTP has many

	said       bool // the client has got a part of the reply that has begun
	held       bool // the last of a pipelined group was passed on
	inMail     bool // MAIL was accepted
	failed     bool // a chunk of the message was refused
	delivered  bool // a reply to the present message was good
	pipelining bool // the backend has offered it, or must be asked one thing at a time
	chunking   bool
	noXCLIENT  bool
}

// newLink is for a backend that f needs.
func newLink(f *frame) *link {
	l := new(link)
	l.greeting(f)
	return l
}

// greeting takes note of an EHLO or HELO that is for the backend.
func (l *link) greeting(f *frame) {
	switch f.c.kind {
	case toEHLO:
		l.name, l.hello = string(f.arg), extended
	case toHELO:
		l.name, l.hello = string(f.arg), basic
	}
}

// outstanding reports whether the backend owes a reply, or the rest of one.
func (l *link) outstanding() bool { return l.waiting.Len() > 0 || l.code != 0 }

// mayStand reports whether the client can make sense of a reply of ours that ends
// the session. A chunk that it is sending waits for one.
func (l *link) mayStand(r codec.Refusal, inChunk bool) bool {
	switch n := l.waiting.Len(); {
	case l.said:
		return false
	case r == codec.Unavailable || r == codec.Internal:
		return true
	default:
		return l.code == 0 && (n == 0 || n == 1 && inChunk)
	}
}

// forget ends what there was of a transaction.
func (l *link) forget() { l.inMail, l.failed, l.accepted = false, false, 0 }

// kind is what a reply of the backend answers.
type kind uint8

const (
	toOther kind = iota
	toEHLO       // or LHLO
	toHELO
	toMAIL
	toRCPT
	toRSET
	toDATA      // 354, and content follows
	toMessage   // the end of the content behind DATA
	toChunk     // BDAT
	toLastChunk // BDAT LAST
	toAUTH      // or a SASL answer: 334, and another follows
	toQUIT
)

// greets reports whether it is EHLO, LHLO or HELO.
func (k kind) greets() bool { return k == toEHLO || k == toHELO }

// ends reports whether it is the end of a message.
func (k kind) ends() bool { return k == toMessage || k == toLastChunk }

// allows reports whether the reply may have this code: what would make the client
// send something else next than what we expect, it must not get.
func (k kind) allows(code int) bool {
	switch code / 100 {
	case 2:
		return k != toDATA
	case 3:
		return k == toDATA && code == 354 || k == toAUTH && code == 334
	default:
		return true // 4 or 5
	}
}
