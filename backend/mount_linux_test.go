package backend

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"starttlsd/codec/smtp"
)

// mountTmpfs mounts a small file system and returns where.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skip("mounting needs root:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error("unmount:", err) // a leaked descriptor would keep it busy
		}
	})
	return dir
}

func TestFullFileSystemRecovers(t *testing.T) {
	m := openMaildir(t, mountTmpfs(t, "size=256k"))
	msg := begin(t, m)
	chunk := make([]byte, 100<<10)
	write(t, msg, chunk)
	write(t, msg, chunk)
	if n, err := msg.Write(chunk); n >= len(chunk) || !errors.Is(err, smtp.ErrFull) {
		t.Errorf("Write = %d, %v; want a short write and %v", n, err, smtp.ErrFull)
	}
	checkDead(t, m, msg, smtp.ErrFull)
	checkServes(t, m)
}

func TestFileSystemWithoutInodesRecovers(t *testing.T) {
	m := openMaildir(t, mountTmpfs(t, "nr_inodes=8"))
	var open []*message
	var err error
	for range 10 {
		var msg smtp.Message
		if msg, err = m.Begin(nil); err != nil {
			break
		}
		open = append(open, msg.(*message))
	}
	if !errors.Is(err, smtp.ErrFull) {
		t.Errorf("Begin = %v, want %v", err, smtp.ErrFull)
	}
	for _, msg := range open {
		msg.Abort()
	}
	checkServes(t, m)
}

func TestReadOnlyFileSystem(t *testing.T) {
	path := mountTmpfs(t, "size=256k")
	m := openMaildir(t, path)
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("", path, "", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	if _, err := m.Begin(nil); !errors.Is(err, syscall.EROFS) || errors.Is(err, smtp.ErrFull) {
		t.Errorf("Begin = %v, want %v", err, syscall.EROFS)
	}
	want := "maildir: access " + path + ": read-only file system"
	if _, err := OpenMaildir(path); err == nil || err.Error() != want {
		t.Errorf("OpenMaildir\n got %v\nwant %s", err, want)
	}
	remount(0)
	checkServes(t, m)
}

func TestAnotherFileSystemBelowNewFailsCommit(t *testing.T) {
	m := openMaildir(t, t.TempDir())
	other := mountTmpfs(t, "size=256k")
	if err := os.Remove(m.new); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, m.new); err != nil {
		t.Fatal(err)
	}
	msg := begin(t, m)
	if err := msg.Commit(); !errors.Is(err, syscall.EXDEV) {
		t.Errorf("Commit = %v, want %v", err, syscall.EXDEV)
	}
	checkCounts(t, m, 0, 0)
}
