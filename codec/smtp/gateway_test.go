package smtp

import (
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"starttlsd/codec"
	"starttlsd/codec/codectest"
)

// An idle connection has one Gateway, whose size the allocator rounds up.
func TestGatewayIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Gateway{}); size > 112 {
		t.Errorf("a Gateway takes %d bytes, want 112 at most", size)
	}
}

func TestOnlyLegalStagesFollow(t *testing.T) {
	for from := quiet; from < stageCount; from++ {
		for next := quiet; next < stageCount; next++ {
			legal := next == done && from != done
			for _, s := range nextStages[from] {
				legal = legal || s == next
			}
			func() {
				defer func() {
					if (recover() == nil) != legal {
						t.Errorf("%v after %v", next, from)
					}
				}()
				(&Gateway{stage: from}).to(next)
			}()
		}
	}
}

func TestGatewayRefusalIsOneReplyOrNone(t *testing.T) {
	for way := range ways {
		for r := codec.Busy; r <= codec.Unavailable; r++ {
			if r == codec.TLSUnavailable || r == codec.Injected {
				continue
			}
			d, _ := converse(t, &GatewayConfig{Hostname: "front.test", TLS: true}, way, true, nil, 100)
			if d.Closed {
				continue
			}
			had := len(d.Out)
			d.Refuse(r)
			got := string(d.Out[had:])
			if got != "" && (!strings.HasPrefix(got, "421 4.") || strings.Count(got, "\n") != 1) {
				t.Errorf("way %d, refusal %d: %q", way, r, got)
			}
		}
	}
}

func TestTheGatewaysLogHoldsNoCredentials(t *testing.T) {
	d, _ := converse(t, &GatewayConfig{Hostname: "front.test"}, 6, true,
		[]byte("AGEAc2VjcmV0\r\n\xff535 no c2VjcmV0\r\n\xffAUTH PLAIN c2VjcmV0\r\n\xff250 c2VjcmV0 evil\r\n250 c2VjcmV0\r\n"), 1000)
	attrs, trouble := d.Session.(codec.Describer).Describe()
	if text := fmt.Sprint(attrs); strings.Contains(text, "c2VjcmV0") || !trouble {
		t.Errorf("%s, trouble %v", text, trouble)
	}
}

// Whatever a client repeats that costs the backend work and does none ends.
func TestNoIdleCommandCanBeRepeatedForEverThroughTheGateway(t *testing.T) {
	for _, line := range []string{"NOOP\r\n", "RSET\r\n", "EHLO a\r\n", "VRFY a\r\n", "HELP\r\n", "AUTH PLAIN =\r\n", "BDAT 0\r\n", "X\r\n"} {
		d := codectest.Connect(NewGateway(&GatewayConfig{Hostname: "front.test"}, &codectest.Peer), true)
		d.Send([]byte("EHLO a\r\n"))
		if err := d.Introduce(&willing{}); err != nil {
			t.Fatal(err)
		}
		d.Receive([]byte("250-s\r\n250-PIPELINING\r\n250 CHUNKING\r\n"))
		for range 200 {
			d.Send([]byte(line))
			if d.Session.(codec.Relayed).Outstanding() && !d.Closed {
				d.Receive([]byte("250-s\r\n250-PIPELINING\r\n250 CHUNKING\r\n"))
			}
		}
		// A login that succeeds is work.
		if !d.Closed && !strings.HasPrefix(line, "AUTH") {
			t.Errorf("%q: 200 times, and the session goes on", line)
		}
	}
}
