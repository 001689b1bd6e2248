package smtp

import (
	"bytes"
	"strings"

	"starttlsd/codec"
)

// offers are the extensions of a backend that a client may see: those of which it
// is known that they need no more than to be passed on. TLS is ours; so is who the
// client is, and what else changes the framing is left out: BURL, and REQUIRETLS,
// which would be a promise about the way to the backend.
var offers = map[string]bool{
	"PIPELINING": true, "SIZE": true, "8BITMIME": true, "SMTPUTF8": true, "ENHANCEDSTATUSCODES": true,
	"CHUNKING": true, "BINARYMIME": true, "DSN": true, "ETRN": true, "VRFY": true, "EXPN": true, "HELP": true,
	"DELIVERBY": true, "MT-PRIORITY": true, "NO-SOLICITING": true, "FUTURERELEASE": true, "RRVS": true, "LIMITS": true,
}

// maxOffer is the longest line of the list that fits our reply whole: half a name
// could be another.
const maxOffer = 500

// offer is what a client may see of a line of the backend's list, or "".
func offer(text string, secured bool) string {
	keyword, params, _ := strings.Cut(text, " ")
	keyword = codec.Upper(keyword)
	if len(text) > maxOffer || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) {
		return ""
	}
	if old, ok := strings.CutPrefix(keyword, "AUTH="); ok { // from before RFC 2554, for clients as old
		return offerAuth("AUTH=", old+" "+params, secured)
	}
	switch {
	case keyword == "AUTH":
		return offerAuth("AUTH ", params, secured)
	case offers[keyword]:
		return text
	default:
		return ""
	}
}

func offerAuth(prefix, params string, secured bool) string {
	kept := codec.PassSASL([]byte(params))
	if !secured || len(kept) == 0 {
		return ""
	}
	return prefix + string(kept)
}

// isMechanism reports whether the argument of AUTH begins with the name of a SASL
// mechanism that works through us.
func isMechanism(arg []byte) bool {
	name, _, _ := bytes.Cut(arg, []byte{' '})
	return codec.PassesSASL(name)
}

// offered takes note of what a line of the backend's list allows us.
func (l *link) offered(text string) {
	keyword, _, _ := strings.Cut(text, " ")
	l.pipelining = l.pipelining || codec.Is(keyword, "PIPELINING")
	l.chunking = l.chunking || codec.Is(keyword, "CHUNKING")
}
