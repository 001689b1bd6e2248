package backend

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkDeliver is one message from Begin to Commit, in 16 KiB pieces as the
// session brings them. BenchmarkSyncedFile is its floor: the same bytes in one
// new file and one fsync, without a name, a directory or an end that can fail.
func BenchmarkDeliver(b *testing.B) {
	piece := make([]byte, 16<<10)
	benchmark(b, func(b *testing.B, dir string, size int) func() error {
		m := openMaildir(b, dir)
		return func() error {
			msg, err := m.Begin(nil)
			if err != nil {
				return err
			}
			defer msg.Abort()
			for left := size; left > 0; left -= len(piece) {
				if _, err := msg.Write(piece[:min(left, len(piece))]); err != nil {
					return err
				}
			}
			return msg.Commit()
		}
	})
}

func BenchmarkSyncedFile(b *testing.B) {
	benchmark(b, func(b *testing.B, dir string, size int) func() error {
		body := make([]byte, size)
		var count atomic.Int64
		return func() error {
			f, err := os.Create(filepath.Join(dir, fmt.Sprint(count.Add(1))))
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.Write(body); err != nil {
				return err
			}
			return f.Sync()
		}
	})
}

func benchmark(b *testing.B, setup func(b *testing.B, dir string, size int) func() error) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		for _, parallel := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("size=%dKiB/parallel=%d", size>>10, parallel), func(b *testing.B) {
				deliver := setup(b, b.TempDir(), size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				var left atomic.Int64
				left.Store(int64(b.N))
				var wg sync.WaitGroup
				for range parallel {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if err := deliver(); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}
