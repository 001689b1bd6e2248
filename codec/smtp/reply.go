package smtp

import (
	"errors"
	"fmt"

	"starttlsd/codec"
)

// reply is one that is always the same. What a client sent is in none of them.
type reply struct {
	code   int
	status string // RFC 3463; empty in replies to EHLO and HELO (RFC 2034 §4)
	text   string
}

// String is for the log.
func (r *reply) String() string { return fmt.Sprintf("%d %s %s", r.code, r.status, r.text) }

var (
	replyOK        = &reply{250, "2.0.0", "Ok"}
	replySender    = &reply{250, "2.1.0", "Sender ok"}
	replyRecipient = &reply{250, "2.1.5", "Recipient ok"}
	replyVRFY      = &reply{252, "2.0.0", "Send some mail, it will be tried"} // RFC 5321 §3.5.3
	replyHelp      = &reply{214, "2.0.0", "HELO EHLO STARTTLS MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT"}
	replyGoAhead   = &reply{220, "2.0.0", "Ready to start TLS"}
	replyData      = &reply{354, "", "End with <CR><LF>.<CR><LF>"}

	errLineTooLong = &reply{500, "5.5.6", "Line too long"}
	errLineEnds    = &reply{500, "5.5.2", "NUL, bare CR or bare LF in a command"}
	errUnknown     = &reply{500, "5.5.2", "Command not recognized"}
	errHelo        = &reply{501, "", "A host name or address literal is expected"}
	errArgument    = &reply{501, "5.5.4", "Syntax error in the argument"}
	errNoArgument  = &reply{501, "5.5.4", "No argument is expected"}
	errUnsupported = &reply{502, "5.5.1", "Command not implemented"}
	errParameter   = &reply{555, "5.5.4", "Parameter not supported"}

	errTLSRequired = &reply{530, "5.7.0", "Must issue a STARTTLS command first"}
	errTLSActive   = &reply{503, "5.5.1", "TLS is active already"}
	errTLSNotNow   = &reply{454, "4.7.0", "TLS is not available at the moment"}
	errInjected    = &reply{554, "5.5.0", "Nothing may follow STARTTLS before TLS"}
	errBinary      = &reply{554, "5.5.0", "This is SMTP"}
	errNotSMTP     = &reply{554, "5.5.1", "This is SMTP"}

	errReverse    = &reply{553, "5.1.7", "Bad sender address syntax"}
	errForward    = &reply{553, "5.1.3", "Bad recipient address syntax"}
	errNeedsUTF8  = &reply{553, "5.6.7", "The address needs SMTPUTF8"} // RFC 6531 §3.5
	errRecipients = &reply{452, "4.5.3", "Too many recipients"}

	errTooBig   = &reply{552, "5.3.4", "Message too big"}
	errFull     = &reply{452, "4.3.1", "No room to store the message"}
	errBackend  = &reply{451, "4.3.0", "The message could not be stored"}
	errLineEnd  = &reply{554, "5.6.0", "NUL, bare CR or bare LF in the message"}
	errTextLine = &reply{554, "5.6.0", "Line too long in the message"}
	errLoop     = &reply{554, "5.4.6", "Too many hops"}

	closeErrors   = &reply{421, "4.7.0", "Too many errors"}
	closeJunk     = &reply{421, "4.7.0", "Too many commands without a message"}
	closeMessages = &reply{421, "4.7.0", "Too many messages in one session"}
	closeBusy     = &reply{421, "4.3.2", "Too many connections"}
	closeDraining = &reply{421, "4.3.2", "Shutting down"}
	closeTimeout  = &reply{421, "4.4.2", "Timed out"}
	closeInternal = &reply{421, "4.3.0", "Internal error"}

	errControl       = &reply{500, "5.5.2", "Control character in a command"}
	errMechanism     = &reply{504, "5.5.4", "Authentication mechanism not supported"}
	errChunking      = &reply{503, "5.5.1", "CHUNKING was not offered"}
	errChunkFailed   = &reply{503, "5.5.1", "An earlier chunk was refused"}
	errSecret        = &reply{538, "5.7.11", "Must issue a STARTTLS command first"}
	closeUnavailable = &reply{421, "4.3.0", "The server behind this one is not available"}
)

// goodbyes are the words for what ends a session from the engine's side.
var goodbyes = [...]*reply{
	codec.Busy:           closeBusy,
	codec.Draining:       closeDraining,
	codec.TimedOut:       closeTimeout,
	codec.TLSUnavailable: nil, // means something behind STARTTLS only
	codec.Injected:       nil,
	codec.Internal:       closeInternal,
	codec.Unavailable:    closeUnavailable,
}

// errSequence are the words for a command that is legal, but not in this phase.
var errSequence = [phaseCount]*reply{
	fresh:  {503, "5.5.1", "Bad sequence: EHLO is expected"},
	ready:  {503, "5.5.1", "Bad sequence: MAIL is expected"},
	mail:   {503, "5.5.1", "Bad sequence: RCPT is expected"},
	rcpt:   {503, "5.5.1", "Bad sequence: RCPT, DATA or BDAT is expected"},
	chunks: {503, "5.5.1", "Bad sequence: BDAT is expected"},
}

// refusalOf says what the client is told of a backend's error.
func refusalOf(err error) *reply {
	switch {
	case errors.Is(err, ErrFull):
		return errFull
	case errors.Is(err, ErrTooBig):
		return errTooBig
	default:
		return errBackend
	}
}

// say answers a command that was carried out.
func say(out []byte, r *reply) ([]byte, codec.Action) {
	return codec.AppendReply(out, r.code, r.status, r.text), codec.Continue
}

// conduct counts what a client does that is no work.
type conduct struct {
	bad  uint32 // see Limits
	junk uint32
}

// idled counts a command, and reports whether it was one too many.
func (c *conduct) idled(l *Limits) bool {
	c.junk++
	return c.junk >= limit(l.JunkCommands, defaultJunk)
}

// toll counts a refusal: what cannot be meant towards BadCommands, what may be the
// tail of a pipeline towards JunkCommands. It returns what to answer: over the limit
// that is a goodbye.
func (c *conduct) toll(r *reply, l *Limits) *reply {
	switch r.code {
	case 500, 501, 502, 504, 555:
		if c.bad++; c.bad >= limit(l.BadCommands, defaultBad) {
			return closeErrors
		}
	case 454, 503, 530, 538, 552, 553:
		if c.idled(l) {
			return closeJunk
		}
	}
	return r
}

// refuse answers a command that was not carried out.
func (s *Session) refuse(out []byte, r *reply) ([]byte, codec.Action) {
	s.inTrouble().refused = r
	if r = s.toll(r, &s.cfg.Limits); r.code == 421 {
		return s.close(out, r)
	}
	return say(out, r)
}

// close answers with the last reply.
func (s *Session) close(out []byte, r *reply) ([]byte, codec.Action) {
	s.inTrouble().refused = r
	out = farewell(out, r, s.cfg.Hostname, s.phase == silent)
	s.to(over)
	return out, codec.Close
}

// farewell appends the last reply. A 421 names the host (RFC 5321 §4.2.3); in place
// of the greeting there is no enhanced status code (RFC 2034 §4).
func farewell(out []byte, r *reply, hostname string, greeting bool) []byte {
	text, status := r.text, r.status
	if r.code == 421 {
		text = hostname + " " + text
	}
	if greeting {
		status = ""
	}
	return codec.AppendReply(out, r.code, status, text)
}
