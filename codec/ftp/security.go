package ftp

import (
	"bytes"

	"starttlsd/codec"
)

// auth only asks: the engine decides, and calls GoAhead or Refuse (RFC 4217 §4).
func (s *Session) auth(_ *command, _, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	mechanism := codec.Upper(arg[:min(len(arg), 8)])
	why := ""
	switch {
	case s.secured:
		why = "503 TLS is active already"
	case mechanism != "TLS" && mechanism != "TLS-C" && mechanism != "SSL":
		why = "504 Only AUTH TLS is possible"
	case !s.cfg.TLS:
		why = "431 TLS is not offered"
	default:
		s.ssl = mechanism == "SSL"
		s.to(asked)
		return up, out, codec.Upgrade
	}
	out, action := s.refuse(out, why)
	return up, out, action
}

// pbsz is of RFC 4217 §8: TLS has no buffer size to agree on, which is size 0.
func (s *Session) pbsz(_ *command, _, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	why := ""
	switch {
	case !s.secured:
		why = "503 AUTH TLS comes first"
	case !isNumber(arg):
		why = "501 A number is expected"
	default:
		s.sized = true
		return up, say(out, "200 PBSZ=0"), codec.Continue
	}
	out, action := s.refuse(out, why)
	return up, out, action
}

// prot is of RFC 4217 §9.
func (s *Session) prot(_ *command, _, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	level := codec.Upper(arg[:min(len(arg), 2)])
	why := ""
	switch {
	case !s.secured:
		why = "503 AUTH TLS comes first"
	case !s.sized:
		why = "503 PBSZ 0 comes first"
	case level == "S" || level == "E":
		why = "536 Only PROT P and PROT C are possible"
	case level != "P" && level != "C":
		why = "504 Only PROT P and PROT C are possible"
	case level == "C" && s.cfg.RequireTLS == ForData:
		s.private = s.private && !s.ssl // who has not asked for it would be waited for
		why = "534 Data connections have to be private: use PROT P"
	case level == "P":
		s.private = true
		return up, say(out, "200 Data connections are private"), codec.Continue
	default:
		s.private = false
		return up, say(out, "200 Data connections are in clear"), codec.Continue
	}
	out, action := s.refuse(out, why)
	return up, out, action
}

// ccc would take the control connection back to plaintext (RFC 4217 §7).
func (s *Session) ccc(_ *command, _, _, up, out []byte) ([]byte, []byte, codec.Action) {
	why := "533 The control connection stays under TLS"
	if !s.secured {
		why = "533 There is no TLS"
	}
	out, action := s.refuse(out, why)
	return up, out, action
}

func isNumber(p []byte) bool {
	return len(p) > 0 && len(p) <= 10 && len(bytes.Trim(p, "0123456789")) == 0
}
