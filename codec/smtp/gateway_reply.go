package smtp

import (
	"bytes"
	"strings"

	"starttlsd/codec"
)

// relay is what a Gateway with a backend has besides.
type relay struct {
	asked   codec.Pipeline[kind]
	line    codec.Line // of the backend's
	dot     codec.Dot
	left    int64    // octets still to come of a chunk; octets swallowed of a message
	list    []string // of extensions, while it is coming
	replies int      // still to come for a message
	rcpts   int      // recipients accepted
	mail    bool     // a transaction has begun
	midway  bool     // a reply of more than one line has been passed on in part
}

const (
	maxReplyLine = 4 << 10
	maxList      = 200 // lines of extensions
)

// Reply implements codec.Relayed.
func (g *Gateway) Reply(in, out []byte) (int, []byte, codec.Action) {
	r := g.relay
	n, line, status := r.line.Next(in, maxReplyLine)
	if status == codec.LineMore {
		return n, out, codec.NeedMore
	}
	code, more, ok := parseReply(line)
	if status != codec.LineOK || !ok || r.asked.Len() == 0 && code != 421 {
		out, action := g.broken(out)
		return n, out, action
	}
	if r.asked.Len() > 0 && *r.asked.First() == kHello && code == 250 {
		if len(r.list) == maxList {
			out, action := g.broken(out)
			return n, out, action
		}
		r.list = append(r.list, string(line[min(4, len(line)):]))
		if more {
			return n, out, codec.Content
		}
		out = codec.AppendReply(out, 250, "", g.extensions(r.list)...)
		r.list = nil
	} else {
		out = append(append(out, line...), crlf...)
		if r.midway = more; more {
			return n, out, codec.Content
		}
	}
	return n, out, g.answered(code)
}

// parseReply reads a reply line (RFC 5321 §4.2).
func parseReply(line []byte) (code int, more, ok bool) {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0, false, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, false
		}
		code = code*10 + int(c-'0')
	}
	return code, len(line) > 3 && line[3] == '-', code >= 200 && code < 600
}

// broken ends a session whose backend does not speak the protocol.
func (g *Gateway) broken(out []byte) ([]byte, codec.Action) {
	if g.relay.midway {
		g.to(gOver)
		return out, codec.Close
	}
	return g.close(out, closeUnavailable)
}

// answered takes note of a reply that is complete.
func (g *Gateway) answered(code int) codec.Action {
	r := g.relay
	if code == 421 { // RFC 5321 §3.8: the backend is about to close
		g.to(gOver)
		return codec.Close
	}
	good := code/100 == 2
	switch *r.asked.First() {
	case kHello, kReset:
		if good {
			r.mail = false
		}
		if *r.asked.First() == kHello {
			g.to(gReady)
		}
	case kMail:
		if good {
			r.mail, r.rcpts = true, 0
		}
	case kRcpt:
		if good {
			r.rcpts++
		}
	case kData:
		if code == 354 {
			r.dot, r.left = codec.Dot{}, 0
			g.to(gContent)
		} else {
			g.to(gReady)
		}
	case kAuth:
		if code == 334 {
			g.to(gAnswer)
			return codec.Continue
		}
		g.to(gReady)
		if good {
			g.junk = 0
		}
	case kMessage:
		if !g.delivered(good) {
			return codec.Continue
		}
	case kQuit:
		r.asked.Done()
		g.to(gOver)
		return codec.Close
	}
	r.asked.Done()
	return codec.Continue
}

// delivered takes note of a reply to a message, and reports whether it is the last:
// with LMTP there is one for each recipient that was accepted (RFC 2033 §4.2).
func (g *Gateway) delivered(good bool) bool {
	r := g.relay
	if r.replies == 0 {
		r.replies = 1
		if g.cfg.LMTP {
			r.replies = max(1, r.rcpts)
		}
	}
	if good {
		g.messages++
		g.junk = 0
	}
	if r.replies--; r.replies > 0 {
		return false
	}
	r.mail, r.rcpts = false, 0
	return true
}

// passable are the extensions whose commands and parameters are understood here, as
// far as framing goes. What is not in it is not offered.
var passable = map[string]bool{
	"PIPELINING": true, "SIZE": true, "8BITMIME": true, "SMTPUTF8": true, "ENHANCEDSTATUSCODES": true, "CHUNKING": true,
	"BINARYMIME": true, "DSN": true, "ETRN": true, "VRFY": true, "EXPN": true, "HELP": true, "DELIVERBY": true,
	"MT-PRIORITY": true, "NO-SOLICITING": true, "FUTURERELEASE": true, "RRVS": true, "LIMITS": true,
}

// extensions is a backend's list as our client gets it. The first line names us.
func (g *Gateway) extensions(list []string) []string {
	out := []string{g.cfg.Hostname}
	for _, line := range list[1:] {
		keyword, params, _ := strings.Cut(strings.ToUpper(line), " ")
		switch {
		case passable[keyword]:
			out = append(out, line)
		case keyword == "AUTH" && g.secured:
			if mechanisms := unbound(params); mechanisms != "" {
				out = append(out, "AUTH "+mechanisms)
			}
		}
	}
	if g.cfg.TLS && !g.secured && g.extended {
		out = append(out, "STARTTLS")
	}
	return out
}

// unbound leaves out the SASL mechanisms that are bound to the TLS channel, which ends
// here (RFC 5802 §6).
func unbound(mechanisms string) string {
	var out []string
	for m := range strings.FieldsSeq(mechanisms) {
		if !strings.HasSuffix(m, "-PLUS") {
			out = append(out, m)
		}
	}
	return strings.Join(out, " ")
}

// isOn reports whether a backend's list offers the extension, and its parameters.
func isOn(list []string, keyword string) (params string, ok bool) {
	for _, line := range list {
		if k, p, _ := strings.Cut(line, " "); strings.EqualFold(k, keyword) {
			return p, true
		}
	}
	return "", false
}

// clip is a piece of a line for the log.
func clip(line []byte) []byte { return bytes.TrimSpace(line[:min(len(line), 100)]) }
