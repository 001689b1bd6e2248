package smtp

import "fmt"

// phase is what the session expects next.
type phase uint8

const (
	silent    phase = iota // nothing was said yet
	fresh                  // no EHLO or HELO, or none since TLS
	ready                  // greeted; no transaction
	mail                   // MAIL was accepted
	rcpt                   // at least one RCPT was accepted
	chunks                 // at least one BDAT was accepted, not the last
	inData                 // in the content behind DATA
	inChunk                // in the content behind BDAT
	inRefused              // in the content behind a BDAT that was refused
	asked                  // STARTTLS was reported to the engine
	handshake              // the go-ahead was given
	over                   // the last reply was said
	phaseCount
)

func (p phase) String() string {
	return [phaseCount]string{"silent", "fresh", "ready", "mail", "rcpt", "chunks", "data", "chunk",
		"refused chunk", "asked", "handshake", "over"}[p]
}

// phases is a set of phases.
type phases uint16

func set(ps ...phase) (s phases) {
	for _, p := range ps {
		s |= 1 << p
	}
	return s
}

func (s phases) has(p phase) bool { return s&(1<<p) != 0 }

// dialogue is the phases in which commands are read.
var dialogue = set(fresh, ready, mail, rcpt, chunks)

// successors says which phases may follow one. Every phase but the last may be
// followed by over.
var successors = [phaseCount]phases{
	silent:    set(fresh),
	fresh:     set(ready, inRefused, asked),
	ready:     set(mail, inRefused, asked),
	mail:      set(ready, rcpt, inRefused),
	rcpt:      set(ready, inData, inChunk),
	chunks:    set(ready, inChunk),
	inData:    set(ready),
	inChunk:   set(ready, chunks),
	inRefused: set(fresh, ready, mail),
	asked:     set(fresh, ready, handshake), // back when TLS is unavailable
	handshake: set(fresh),
}

// to is the one place where the phase changes.
func (s *Session) to(next phase) {
	if next == s.phase {
		return
	}
	if !successors[s.phase].has(next) && (next != over || s.phase == over) {
		panic(fmt.Sprintf("smtp: phase %v after %v", next, s.phase))
	}
	s.phase = next
}
