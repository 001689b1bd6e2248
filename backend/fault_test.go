package backend

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"starttlsd/codec/smtp"
)

// swapFile puts f in the place of msg's open file, to have a system call fail.
func swapFile(msg *message, f *os.File) {
	msg.file.Close()
	msg.file = f
}

// brokenFile returns a file that cannot be synced.
func brokenFile(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return w
}

func TestFullDiskEndsTheMessage(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here:", err)
	}
	m := openMaildir(t, t.TempDir())
	msg := begin(t, m)
	write(t, msg, []byte("fits"))
	swapFile(msg, full)
	if _, err := msg.Write([]byte("does not")); !errors.Is(err, smtp.ErrFull) {
		t.Errorf("Write = %v, want %v", err, smtp.ErrFull)
	}
	checkCounts(t, m, 0, 0) // the room is given back at once, not at Commit
	checkDead(t, m, msg, smtp.ErrFull)
	checkServes(t, m)
}

func TestQuotaCountsAsFull(t *testing.T) {
	for err, full := range map[error]bool{
		syscall.ENOSPC: true,
		syscall.EDQUOT: true,
		syscall.EACCES: false,
		syscall.EROFS:  false,
		syscall.EIO:    false,
		syscall.EMFILE: false,
	} {
		got := storeError(&fs.PathError{Op: "write", Path: "x", Err: err})
		if errors.Is(got, smtp.ErrFull) != full || !errors.Is(got, err) {
			t.Errorf("%v becomes %v", err, got)
		}
	}
}

func TestFailedSyncDeliversNothing(t *testing.T) {
	m := openMaildir(t, t.TempDir())
	msg := begin(t, m)
	swapFile(msg, brokenFile(t))
	err := msg.Commit()
	if err == nil {
		t.Fatal("Commit succeeded")
	}
	checkDead(t, m, msg, err)
	checkServes(t, m)
}

func TestFailedDirectorySyncTakesTheMessageBack(t *testing.T) {
	m := openMaildir(t, t.TempDir())
	msg := begin(t, m)
	defer msg.Abort()
	if err := msg.move(brokenFile(t)); err == nil {
		t.Error("move succeeded")
	}
	checkCounts(t, m, 0, 0)
}

// A file in the place of a directory fails for root too, whom modes do not stop.

func TestUnusableNewFailsCommit(t *testing.T) {
	m := openMaildir(t, t.TempDir())
	msg := begin(t, m)
	replaceByFile(t, m.new)
	if err := msg.Commit(); err == nil || errors.Is(err, smtp.ErrFull) {
		t.Errorf("Commit = %v, want an ordinary error", err)
	}
	restoreDir(t, m.new)
	checkCounts(t, m, 0, 0)
	checkServes(t, m)
}

func TestUnusableTmpFailsBegin(t *testing.T) {
	m := openMaildir(t, t.TempDir())
	replaceByFile(t, m.tmp)
	if _, err := m.Begin(nil); err == nil || errors.Is(err, smtp.ErrFull) {
		t.Errorf("Begin = %v, want an ordinary error", err)
	}
	restoreDir(t, m.tmp)
	checkServes(t, m)
}

func replaceByFile(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func restoreDir(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestVanishedMaildirServesAgainWhenItIsBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drop")
	m := openMaildir(t, path)
	held, survivor := begin(t, m), begin(t, m)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Begin(nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Begin = %v, want %v", err, fs.ErrNotExist)
	}
	if err := held.Commit(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Commit = %v, want %v", err, fs.ErrNotExist)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	if err := survivor.Commit(); err != nil {
		t.Error("a message that did not meet the gap:", err)
	}
	checkServes(t, m)
}

func TestMissingPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root ignores modes; TestReadOnlyFileSystem covers root")
	}
	path := t.TempDir()
	m := openMaildir(t, path)
	if err := os.Chmod(m.tmp, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(m.tmp, 0o700)
	if _, err := m.Begin(nil); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Begin = %v, want %v", err, fs.ErrPermission)
	}
	want := "maildir: access " + m.tmp + ": permission denied"
	if _, err := OpenMaildir(path); err == nil || err.Error() != want {
		t.Errorf("OpenMaildir\n got %v\nwant %s", err, want)
	}
}
