package codec

import "testing"

func TestPassSASL(t *testing.T) {
	for in, want := range map[string]string{
		"PLAIN LOGIN": "PLAIN LOGIN",
		"SCRAM-SHA-256 SCRAM-SHA-256-PLUS scram-sha-1-plus": "SCRAM-SHA-256",
		"EXTERNAL external": "", "": "", "PLAIN\x00 A_NAME_THAT_IS_TOO_LONG X": "X",
	} {
		if got := string(PassSASL([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestIsSASLResponse(t *testing.T) {
	for in, want := range map[string]bool{
		"": true, "*": true, "=": true, "AGEAYg==": true, "YQ+/": true,
		"XCLIENT ADDR=1": false, "**": false, "a b": false, "QUIT\t": false,
	} {
		if got := IsSASLResponse([]byte(in)); got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
}
