package load

import "strings"

// message is one of size bytes, if that is not too few for a message at all. Some
// of its lines begin with a dot.
func message(size int) string {
	const line = "A line of the usual length, as people write them and programs break them.\r\n"
	var b strings.Builder
	b.WriteString("Subject: load\r\n\r\n")
	for i := 0; size-b.Len() > 2*len(line); i++ {
		if i%8 == 0 {
			b.WriteByte('.')
		}
		b.WriteString(line)
	}
	for size-b.Len() > 2 {
		n := min(size-b.Len()-2, len(line))
		if left := size - b.Len() - n - 2; left == 1 || left == 2 { // no room for another line
			n -= 2
		}
		b.WriteString(strings.Repeat("x", n) + "\r\n")
	}
	return b.String()
}

// stuffed is content as DATA takes it: a dot before every line that begins with
// one (RFC 5321 §4.5.2).
func stuffed(content string) string {
	if strings.HasPrefix(content, ".") {
		content = "." + content
	}
	return strings.ReplaceAll(content, "\r\n.", "\r\n..")
}
