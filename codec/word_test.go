package codec

import "testing"

// A backend knows ASCII alone.
func TestKeywordsAreASCII(t *testing.T) {
	for _, word := range []string{"quıt", "liſt", "\u212aeep", "quit\xff", "QUIT "} {
		for _, keyword := range []string{"QUIT", "LIST", "KEEP"} {
			if Upper(word) == keyword || Upper([]byte(word)) == keyword || Is(word, keyword) || Is([]byte(word), keyword) {
				t.Errorf("%q is taken for %s", word, keyword)
			}
		}
	}
	word := []byte("Quit")
	if Upper(word) != "QUIT" || !Is(word, "QUIT") || string(word) != "Quit" {
		t.Errorf("%q, and %q is left", Upper(word), word)
	}
}

func TestSASLNamesAreASCII(t *testing.T) {
	for name, want := range map[string]bool{"PLAIN": true, "scram-sha-256": true, "ſCRAM-SHA-1": false, "external": false, "X-PLUſ": false, "x-plus": false, "": false} {
		if PassesSASL([]byte(name)) != want {
			t.Errorf("%q passes: %v", name, !want)
		}
	}
}
