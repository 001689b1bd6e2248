package codec

import "strconv"

// maxReply is the longest reply line, CRLF included (RFC 5321 §4.5.3.1.5).
const maxReply = 512

// AppendReply appends a reply of SMTP form, one line for each of lines: the code,
// "-" or on the last line " ", the enhanced status code unless it is empty
// (RFC 2034 §4), and the text. Text is cut where a line would be over 512 octets,
// and what is not printable ASCII in it becomes "?": no text, wherever it is
// from, makes a second reply.
func AppendReply(out []byte, code int, status string, lines ...string) []byte {
	for i, text := range lines {
		start := len(out)
		out = strconv.AppendInt(out, int64(code), 10)
		if i < len(lines)-1 {
			out = append(out, '-')
		} else {
			out = append(out, ' ')
		}
		if status != "" {
			out = append(out, status...)
			out = append(out, ' ')
		}
		text = text[:min(len(text), maxReply-len(crlf)-(len(out)-start))]
		for j := range len(text) {
			out = append(out, printable(text[j]))
		}
		out = append(out, crlf...)
	}
	return out
}

func printable(c byte) byte {
	if c < ' ' || c > '~' {
		return '?'
	}
	return c
}
