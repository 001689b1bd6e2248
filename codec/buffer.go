package codec

import "github.com/valyala/bytebufferpool"

// GetBuffer returns an empty buffer, which is the caller's until PutZeroed. Any
// goroutine may call it.
func GetBuffer() *bytebufferpool.ByteBuffer { return bytebufferpool.Get() }

// PutZeroed gives a buffer back to be used for another connection. Input may hold
// credentials, also beyond the present length, so all of it is overwritten first.
func PutZeroed(b *bytebufferpool.ByteBuffer) {
	clear(b.B[:cap(b.B)])
	bytebufferpool.Put(b)
}
