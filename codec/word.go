package codec

import "strings"

// Upper is text in upper case, of ASCII alone: what the next server takes for another
// word, such as one with U+0131 or U+017F, must not be a keyword here.
func Upper[T ~string | ~[]byte](text T) string {
	upper := append(make([]byte, 0, len(text)), text...)
	for i, c := range upper {
		if 'a' <= c && c <= 'z' {
			upper[i] = c - ('a' - 'A')
		}
	}
	return string(upper)
}

// Is reports whether word is the keyword, which is ASCII, in upper or lower case.
func Is[T ~string | ~[]byte](word T, keyword string) bool {
	// Of the same length: what folds to ASCII and is none is longer.
	return len(word) == len(keyword) && strings.EqualFold(string(word), keyword)
}
