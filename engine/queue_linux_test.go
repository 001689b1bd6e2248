package engine

import (
	"io"
	"net"
	"testing"
)

// Whether or not that makes room in the socket.
func TestWhatThePeerReadsIsAcknowledged(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := narrow.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	const size, some = 256 << 10, 64 << 10
	tc := nc.(*net.TCPConn)
	if _, err := tc.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	for left := int64(size); left > 0; left -= some {
		eventually(t, "the acknowledgement of what fits into the peer's buffers, and no more", func() bool {
			n := unacknowledged(tc)
			return n <= left && n >= left-some
		})
		_, _ = io.CopyN(io.Discard, peer, some)
	}
	eventually(t, "the acknowledgement of all", func() bool { return unacknowledged(tc) == 0 })
}
