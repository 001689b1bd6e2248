package ftp

import (
	"bytes"
	"fmt"
	"testing"
)

func TestPortsInReplies(t *testing.T) {
	for text, want := range map[string]uint16{
		"227 Entering Passive Mode (127,0,0,1,195,149)": 50069,
		"227 Entering Passive Mode. 127,0,0,1,195,149":  50069,
		"227 =10,0,0,1,0,21":                            21,
		"227 (10,0,0,1,0,256)":                          0,
		"227 (10,0,0,1,0)":                              0,
		"227 (10,0,0,1,1,2,3)":                          0,
		"227 1 2 3 4 5 6":                               0,
		"227 (-1,0,0,1,1,2)":                            258, // a sign is no digit; the address is not looked at
		"227":                                           0,
	} {
		if got := passivePort(text[3:]); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]uint16{
		"229 Entering Extended Passive Mode (|||6446|)": 6446,
		"229 (!!!6446!)":            6446,
		"229 (|1|10.0.0.1|6446|)":   0,
		"229 (|||65536|)":           0,
		"229 (|||6446)":             0,
		"229 (|||+446|)":            0,
		"229 (|||)":                 0,
		"229 |||6446|":              0,
		"229 (|||6446|":             0,
		"229 ((((6446() (|||6447|)": 6446, // RFC 2428 §3: any character may part the fields
	} {
		if got := extendedPort(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// FuzzPorts: whatever a backend says, the port is one that it has written.
func FuzzPorts(f *testing.F) {
	f.Add("227 Entering Passive Mode (127,0,0,1,195,149).")
	f.Add("229 Entering Extended Passive Mode (|||6446|)")
	f.Fuzz(func(t *testing.T, text string) {
		if p := passivePort(text); p != 0 && !bytes.Contains([]byte(text), fmt.Appendf(nil, "%d", p&0xff)) {
			t.Errorf("%d", p)
		}
		if p := extendedPort(text); p != 0 && !bytes.Contains([]byte(text), fmt.Appendf(nil, "%d", p)) {
			t.Errorf("%d", p)
		}
	})
}

// FuzzTelnet: to skip commands at the front of a line piece by piece skips the same.
func FuzzTelnet(f *testing.F) {
	f.Add([]byte("\xff\xf4\xff\xf2ABOR"), 1)
	f.Add([]byte("CWD \xff\xff\xff\xfd\x03x\xffy\xff"), 3)
	f.Fuzz(func(t *testing.T, line []byte, cut int) {
		n, whole := skipTelnet(line)
		if cut < 0 || cut > len(line) {
			return
		}
		m, _ := skipTelnet(line[:cut])
		rest, wholeThen := skipTelnet(line[m:])
		if m+rest != n || whole != wholeThen {
			t.Errorf("%q: %d, and cut at %d %d+%d", line, n, cut, m, rest)
		}
	})
}
