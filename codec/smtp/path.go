package smtp

import (
	"bytes"
	"net/netip"
	"unicode"
	"unicode/utf8"

	"starttlsd/codec"
)

// Limits of RFC 5321 §4.5.3.1, in octets.
const (
	maxLocal  = 64
	maxDomain = 255
	maxLabel  = 63  // RFC 1035 §2.3.4
	maxPath   = 256 // with the brackets
)

// parsePath reads a reverse- or forward-path (RFC 5321 §4.1.2, with the UTF-8 of
// RFC 6531 §3.3) from the front of p. addr is the mailbox without brackets and
// without the source route, which is ignored (RFC 5321 §4.1.1.3), or empty for the
// null path; rest is what follows behind a space.
func parsePath(p []byte) (addr, rest []byte, ok bool) {
	if len(p) < 2 || p[0] != '<' || !cleanUTF8(p) {
		return nil, nil, false
	}
	p = p[1:]
	if p[0] == '@' {
		if p, ok = skipRoute(p); !ok {
			return nil, nil, false
		}
	} else if p[0] == '>' {
		return nil, p[1:], endsPath(p[1:])
	}
	local := localPart(p)
	if local == 0 || local > maxLocal || local == len(p) || p[local] != '@' {
		return nil, nil, false
	}
	n := local + 1
	domain := domainOrLiteral(p[n:])
	n += domain
	if domain == 0 || domain > maxDomain || n+2 > maxPath || n == len(p) || p[n] != '>' {
		return nil, nil, false
	}
	return p[:n], p[n+1:], endsPath(p[n+1:])
}

func endsPath(rest []byte) bool { return len(rest) == 0 || rest[0] == ' ' }

// isPostmaster reports whether p is the one path that needs no domain (RFC 5321 §4.5.1).
func isPostmaster(p []byte) bool { return codec.Is(p, "<Postmaster>") }

// skipRoute skips "@a,@b:".
func skipRoute(p []byte) (rest []byte, ok bool) {
	for len(p) > 0 && p[0] == '@' {
		n := 1 + domainName(p[1:])
		if n == 1 || n == len(p) {
			return nil, false
		}
		switch p[n] {
		case ':':
			return p[n+1:], true
		case ',':
			p = p[n+1:]
		default:
			return nil, false
		}
	}
	return nil, false
}

// localPart is the length of the Dot-string or Quoted-string at the front of p,
// or 0 if there is none.
func localPart(p []byte) int {
	if len(p) > 0 && p[0] == '"' {
		return quotedString(p)
	}
	for n := 0; n < len(p); n++ {
		if p[n] == '.' {
			if n == 0 || p[n-1] == '.' {
				return 0
			}
		} else if !atext(p[n]) {
			if n > 0 && p[n-1] == '.' {
				return 0
			}
			return n
		}
	}
	return 0 // a path ends with ">"
}

func quotedString(p []byte) int {
	for n := 1; n < len(p); n++ {
		switch c := p[n]; {
		case c == '"':
			return n + 1
		case c < ' ' || c == 0x7f:
			return 0
		case c == '\\':
			n++
			if n == len(p) || p[n] < ' ' || p[n] > '~' {
				return 0
			}
		}
	}
	return 0
}

// domainOrLiteral is the length of the Domain or address-literal at the front of
// p, or 0.
func domainOrLiteral(p []byte) int {
	if len(p) == 0 || p[0] != '[' {
		return domainName(p)
	}
	end := bytes.IndexByte(p, ']')
	if end < 0 {
		return 0
	}
	text, six := p[1:end], false
	if len(text) > 5 && codec.Is(text[:5], "IPv6:") {
		text, six = text[5:], true
	}
	addr, err := netip.ParseAddr(string(text))
	if err != nil || addr.Is6() != six || addr.Zone() != "" {
		return 0
	}
	return end + 1
}

// domainName is the length of the Domain at the front of p, or 0. The underscore,
// which no host name should have, is found in real ones.
func domainName(p []byte) int {
	label := 0 // where the present one began
	for n := 0; ; n++ {
		if n < len(p) && (letterDigit(p[n]) || p[n] == '-' || p[n] == '_') {
			continue
		}
		if n == label || n-label > maxLabel || p[label] == '-' || p[n-1] == '-' {
			return 0
		}
		if n == len(p) || p[n] != '.' {
			return n
		}
		label = n + 1
	}
}

func letterDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c >= utf8.RuneSelf
}

// atext is RFC 5322 §3.2.3, with RFC 6531 §3.3.
func atext(c byte) bool {
	return letterDigit(c) || bytes.IndexByte([]byte("!#$%&'*+-/=?^_`{|}~"), c) >= 0
}

// cleanUTF8 reports whether p is UTF-8 without control characters.
func cleanUTF8(p []byte) bool {
	return utf8.Valid(p) && bytes.IndexFunc(p, unicode.IsControl) < 0
}

func ascii(p []byte) bool {
	for _, c := range p {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
