package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
)

// makeLarge makes a file that takes little of the disk, in which every MiB is another.
func makeLarge(t *testing.T, name string, size int64) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Truncate(size)
	for at := int64(0); at < size; at += 1 << 20 {
		_, failed := f.WriteAt(binary.BigEndian.AppendUint64(nil, uint64(at)+1), at+at>>20)
		err = errors.Join(err, failed)
	}
	if err = errors.Join(err, f.Close(), os.Chmod(name, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// sum is the checksum and the size of a file.
func sum(t *testing.T, name string) ([]byte, int64) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		t.Fatal(err)
	}
	return h.Sum(nil), n
}

// counted is a hash that knows how much it has seen.
type counted struct {
	hash.Hash
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.Hash.Write(p)
}

// watch samples the memory of starttlsd until the returned function is called, which
// says how much it was at the most.
func (f *ftpFront) watch() (stop func() int) {
	done, gone := make(chan struct{}), make(chan struct{})
	var most atomic.Int64
	go func() {
		defer close(gone)
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
				most.Store(max(most.Load(), int64(f.Usage().PSS)))
			}
		}
	}()
	return func() int {
		close(done)
		<-gone
		return int(most.Load())
	}
}

// A gigabyte goes down and up, and starttlsd has no more of it at a time than before.
func TestInteropFTPLargeFile(t *testing.T) {
	enginetest.Need(t, "curl")
	const allowed = 16 << 20
	size := int64(64 << 20)
	if enginetest.Full() {
		size = 1 << 30
	}
	f := frontFTP(t, startVsftpd(t))
	makeLarge(t, f.path("large"), size)
	want, _ := sum(t, f.path("large"))
	url := "ftp://127.0.0.1:" + f.explicit + "/"
	succeed(t, "", f.curl(url)) // so that what is there once is there
	before := f.Usage()

	stop := f.watch()
	got, began := &counted{Hash: sha256.New()}, time.Now()
	argv := f.curl(url + "large")
	cmd := exec.Command(argv[0], argv[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = got, &said
	err := cmd.Run() // curl has a limit of time
	down, most := time.Since(began), stop()
	if err != nil || got.n != size || !bytes.Equal(got.Sum(nil), want) {
		t.Errorf("%d bytes came down, want %d: %v %s", got.n, size, err, said.String())
	}
	if most > before.PSS+allowed {
		t.Errorf("%d MiB while it went down, %v before", most>>20, before)
	}

	stop, began = f.watch(), time.Now()
	succeed(t, "", f.curl("-T", f.path("large"), url+"up/large"))
	up, most2 := time.Since(began), stop()
	there := filepath.Join(f.path("up"), "large")
	if sum, n := sum(t, there); n != size || !bytes.Equal(sum, want) {
		t.Errorf("%d bytes went up, want %d", n, size)
	}
	if most2 > before.PSS+allowed {
		t.Errorf("%d MiB while it went up, %v before", most2>>20, before)
	}
	t.Logf("down in %v, up in %v; %v before, %.1f and %.1f MiB meanwhile, %v after", down.Round(time.Millisecond), up.Round(time.Millisecond),
		before, float64(most)/(1<<20), float64(most2)/(1<<20), f.Usage())
}
