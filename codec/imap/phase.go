package imap

import "fmt"

// phase is what the session expects next of the client.
type phase uint8

const (
	silent    phase = iota // nothing was said yet
	dialogue               // a command
	literal                // the octets of a literal, for the backend
	rest                   // what follows a literal of the command
	answer                 // a SASL response
	asked                  // nothing: STARTTLS was reported to the engine
	handshake              // nothing: the go-ahead was given
	waiting                // nothing: the backend has a command, or a part of one
	over                   // nothing: the last reply was said, or the client has logged in
	phaseCount
)

func (p phase) String() string {
	return [phaseCount]string{"silent", "dialogue", "literal", "rest", "answer", "asked", "handshake", "waiting", "over"}[p]
}

// successors says which phases may follow one. Every phase may be followed by over.
var successors = [phaseCount][]phase{
	silent:    {dialogue},
	dialogue:  {asked, waiting},
	literal:   {rest, dialogue}, // the latter where the backend has not waited for the end
	rest:      {waiting, dialogue},
	answer:    {waiting, dialogue},
	asked:     {dialogue, handshake}, // back when TLS is unavailable
	handshake: {dialogue},
	waiting:   {dialogue, literal, answer},
}

// to is the one place where the phase changes.
func (s *Session) to(next phase) {
	if next == s.phase || next == over {
		s.phase = next
		return
	}
	for _, p := range successors[s.phase] {
		if p == next {
			s.phase = next
			return
		}
	}
	panic(fmt.Sprintf("imap: phase %v after %v", next, s.phase))
}
