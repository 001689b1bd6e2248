package smtp

import (
	"testing"
	"unsafe"
)

// An idle connection has one Session, whose size the allocator rounds up: the
// next size after 112 is 128, which it shares with what accepting leaves behind.
func TestSessionIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Session{}); size > 112 {
		t.Errorf("a Session takes %d bytes, want 112 at most", size)
	}
}
