package ftp

import (
	"bytes"

	"starttlsd/codec"
)

// transfer keeps the command until the client's data connection and the backend's are
// there: a file is not touched for a transfer that cannot be.
func (s *Session) transfer(c *command, line, _, up, out []byte) ([]byte, []byte, codec.Action) {
	r := s.relay
	why := ""
	switch {
	case s.cfg.RequireTLS == ForData && !s.private: // RFC 4217 §9
		why = "521 Data connections have to be private: use PROT P"
	case r.data == nil || r.data.State() != codec.DataReady:
		why = "425 Use PASV or EPSV first"
	}
	if why != "" {
		out, action := s.refuse(out, why)
		return up, out, action
	}
	way := codec.Download
	if c.flags&upload != 0 {
		way = codec.Upload
	}
	r.pending, r.aborted = bytes.Clone(line), false
	r.early = c.flags&replaces != 0 && s.private
	r.begun = false
	r.data.Connect(way, s.private)
	s.to(connecting)
	return up, out, codec.Continue
}

// connected sends the pending command, or says why it cannot be, as soon as either is
// known. It reports whether anything is.
//
// What is stored replaces a file from its command on, even if the client is about to fail
// in its handshake, or to resume no session. So the backend hears of it behind that, and
// the client is told by us to begin.
func (s *Session) connected(up, out []byte) (_, _ []byte, known bool) {
	r := s.relay
	switch r.data.State() {
	case codec.DataConnecting, codec.DataSecuring:
		return up, out, false
	case codec.DataConnected, codec.DataMoving, codec.DataDone:
		if r.early && !r.begun {
			r.begun = true
			r.data.Start()
			return up, say(out, "150 Ready for TLS and the data"), true
		}
		up = append(append(up, r.pending...), "\r\n"...)
		r.asked.Add(transfer)
		r.pending = nil
		s.to(moving)
	default:
		out = say(out, s.endTransfer())
	}
	return up, out, true
}

// endTransfer is our reply to a transfer that has failed.
func (s *Session) endTransfer() string {
	r := s.relay
	text := faults[r.data.Fault()]
	if r.aborted {
		text = "426 Transfer aborted"
	}
	s.failed++
	r.data.Close()
	r.pending = nil
	if s.phase == connecting {
		s.to(dialogue)
	}
	return text
}

// faults are replies (RFC 959 §5.4, RFC 4217 §10).
var faults = [codec.NumDataFaults]string{
	codec.NoFault:         "426 The transfer has ended",
	codec.FaultNoClient:   "425 No data connection has come",
	codec.FaultNoBackend:  "425 The server behind this one opens no data connection",
	codec.FaultBusy:       "425 TLS is not available at the moment",
	codec.FaultTLS:        "522 TLS has failed on the data connection",
	codec.FaultNotResumed: "522 The data connection has to resume the TLS session of this one",
	codec.FaultTruncated:  "426 The data connection has ended without close_notify: nothing is complete",
	codec.FaultClient:     "426 The data connection has failed",
	codec.FaultBackend:    "426 The data connection of the server behind this one has failed",
	codec.FaultRefused:    "426 The transfer has ended",
}

// abor ends a transfer. A backend that looks for it meanwhile ends its data connection by
// itself; to another one, the end of that says the same.
func (s *Session) abor(c *command, line, _, up, out []byte) ([]byte, []byte, codec.Action) {
	r := s.relay
	switch {
	case s.phase == dialogue:
		return s.send(c.kind, line, up), out, codec.Continue
	case s.phase == connecting:
		s.commands++
		r.aborted = true
		out = say(out, s.endTransfer())
		return up, say(out, "226 Aborted"), codec.Continue
	case r.abor:
		return up, out, codec.Hold
	}
	s.commands++
	r.abor, r.aborted = true, true
	r.data.Abort()
	return append(up, "ABOR\r\n"...), out, codec.Continue
}

// stat is answered here while there is a transfer (RFC 959 §4.1.3): a backend's refusal of
// it could not be told from the transfer's.
func (s *Session) stat(c *command, line, _, up, out []byte) ([]byte, []byte, codec.Action) {
	switch {
	case s.phase == dialogue:
		return s.send(c.kind, line, up), out, codec.Continue
	case s.relay.multi != 0:
		return up, out, codec.Hold
	}
	s.commands++
	return up, say(out, "211 A transfer is under way"), codec.Continue
}

// verdict is what a final reply to a transfer is worth: wait is true while bytes
// still go across, and instead is our reply where the backend's is not true.
func (s *Session) verdict(code int) (wait bool, instead string) {
	r := s.relay
	state, fault := r.data.State(), r.data.Fault()
	switch {
	case code < 300 && state == codec.DataConnected: // it has left the 1xx out
		r.data.Start()
		return true, ""
	case code < 300 && (state == codec.DataSecuring || state == codec.DataMoving):
		return true, ""
	case code < 300 && state == codec.DataDone:
		s.transfers++
		r.data.Close()
		return false, ""
	case code < 300, fault == codec.FaultTLS, fault == codec.FaultNotResumed:
		return false, s.endTransfer()
	}
	if state != codec.DataConnected || r.begun { // else it was refused
		s.failed++
	}
	r.data.Close()
	return false, ""
}
