package engine

import (
	"testing"
	"unsafe"
)

// An idle connection has one conn, whose size the allocator rounds up: the next
// sizes after 192 are 208 and 224.
func TestConnIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(conn{}); size > 192 {
		t.Errorf("a conn takes %d bytes, want 192 at most", size)
	}
}
