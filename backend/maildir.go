package backend

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"starttlsd/codec/smtp"
)

const (
	// staleAge is from the Maildir specification: what has lain in tmp/ for
	// longer belongs to a delivery that has died.
	staleAge = 36 * time.Hour
	// staleScan bounds the files of tmp/ that one OpenMaildir looks at.
	staleScan = 10_000
	// maxCalls bounds the file calls under way in one Maildir. A call holds an
	// OS thread, and Go ends a process that needs 10,000 of them, as a stalled
	// disk under many messages otherwise would.
	maxCalls = 128
)

// errOver is what a message says after Commit or Abort.
var errOver = errors.New("maildir: message is committed or aborted")

// Maildir is an smtp.Backend that keeps each message as a file of its own, as
// https://cr.yp.to/proto/maildir.html describes. It holds no descriptor and
// finds its directories by name every time: one that vanishes fails the
// deliveries of that moment and serves again when it is back.
//
// Its methods may be called from any goroutine, and may wait for the disk.
type Maildir struct {
	tmp, new string
	host     string // this machine, as it stands in file names
	count    atomic.Uint64
	calls    chan struct{} // holds one entry for each file call under way
}

var _ smtp.Backend = (*Maildir)(nil)

// OpenMaildir opens the Maildir at path. What is missing of path itself and its
// tmp/, new/ and cur/ is made, for our user only; the parent of path has to
// exist. Remains of deliveries that died more than 36 hours ago are removed
// from tmp/. The error is one line that names the directory which is at fault.
func OpenMaildir(path string) (*Maildir, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("maildir: %w", err)
	}
	m := &Maildir{
		tmp:   filepath.Join(path, "tmp"),
		new:   filepath.Join(path, "new"),
		host:  escapeHost(host),
		calls: make(chan struct{}, maxCalls),
	}
	for _, dir := range []string{path, m.tmp, m.new, filepath.Join(path, "cur")} {
		if err := makeDir(dir); err != nil {
			return nil, fmt.Errorf("maildir: %w", err)
		}
	}
	m.sweep()
	return m, nil
}

// makeDir makes dir, durably, or checks that the one that exists is ours to use.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		return syncDir(filepath.Dir(dir))
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	// The slash makes anything but a directory an error.
	if err := unix.Access(dir+"/", unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		return &fs.PathError{Op: "access", Path: dir, Err: err}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// sweep removes stale files from tmp/. It is housekeeping: what it cannot
// remove stays, and is no reason not to serve.
func (m *Maildir) sweep() {
	dir, err := os.Open(m.tmp)
	if err != nil {
		return
	}
	defer dir.Close()
	entries, _ := dir.ReadDir(staleScan)
	for _, e := range entries {
		// Names of deliveries never begin with a dot.
		if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > staleAge {
			os.Remove(filepath.Join(m.tmp, e.Name()))
		}
	}
}

// escapeHost encodes the two characters that a file name in a Maildir must not have.
func escapeHost(host string) string {
	return strings.NewReplacer("/", `\057`, ":", `\072`).Replace(host)
}

// uniqueName returns a name that no delivery has had: the time, and the fields
// that the Maildir specification calls M(icroseconds), P(rocess), Q (count in
// this process) and R(andom).
func (m *Maildir) uniqueName() string {
	now := time.Now()
	return fmt.Sprintf("%d.M%dP%dQ%dR%016x.%s", now.Unix(), now.Nanosecond()/1000,
		os.Getpid(), m.count.Add(1), rand.Uint64(), m.host)
}

// Begin starts a message: an empty file in tmp/, and one descriptor until
// Commit or Abort. The error wraps smtp.ErrFull when the disk or the quota has
// no room for the file.
func (m *Maildir) Begin(*smtp.Envelope) (smtp.Message, error) {
	defer m.call()()
	name := m.uniqueName()
	f, err := os.OpenFile(filepath.Join(m.tmp, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, storeError(err)
	}
	return &message{maildir: m, name: name, file: f}, nil
}

// call waits until a file call may begin; the function it returns ends it.
func (m *Maildir) call() (end func()) {
	m.calls <- struct{}{}
	return func() { <-m.calls }
}

// storeError puts err into the terms of the SMTP session.
func storeError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", smtp.ErrFull, err)
	}
	return err
}

// message is a delivery in progress. One goroutine at a time may use it.
type message struct {
	maildir *Maildir
	name    string   // in tmp/ now, in new/ after Commit
	file    *os.File // ours until err is set
	err     error    // why the message takes no more; what its methods return from then on
}

// Write appends p to the file. It is one system call and no buffer, so that a
// message which waits for its peer holds no memory. An error, which wraps
// smtp.ErrFull when there is no room, ends the message and removes its file.
func (g *message) Write(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	defer g.maildir.call()()
	n, err := g.file.Write(p)
	if err != nil {
		g.discard(storeError(err))
	}
	return n, g.err
}

// Commit delivers the message: when it returns nil the file is whole in new/
// and both are on disk. After an error it is not in new/ and its file is
// removed; the error wraps smtp.ErrFull when there was no room.
func (g *message) Commit() error {
	if g.err != nil {
		return g.err
	}
	defer g.maildir.call()()
	if err := g.deliver(); err != nil {
		g.discard(storeError(err))
		return g.err
	}
	g.err = errOver
	return nil
}

func (g *message) deliver() error {
	if err := g.file.Sync(); err != nil {
		return err
	}
	// Some file systems tell only now that they had no room.
	if err := g.file.Close(); err != nil {
		return err
	}
	// Opened first: having no descriptor left must not be found out after the move.
	dir, err := os.Open(g.maildir.new)
	if err != nil {
		return err
	}
	defer dir.Close()
	return g.move(dir)
}

// move takes the finished file to new/, which dir is open on. Rename is atomic,
// and has nothing to overwrite: see uniqueName.
func (g *message) move(dir *os.File) error {
	target := filepath.Join(g.maildir.new, g.name)
	if err := os.Rename(g.path(), target); err != nil {
		return err
	}
	if err := dir.Sync(); err != nil {
		// The peer will be told that we do not have the message, and sends it
		// again. Should a mail reader have taken it already, or a crash bring it
		// back, it is there twice; it is never lost.
		os.Remove(target)
		return err
	}
	return nil
}

// Abort gives the message up and removes its file. After Commit, and after an
// error or another Abort, it does nothing.
func (g *message) Abort() {
	if g.err != nil {
		return
	}
	defer g.maildir.call()()
	g.discard(errOver)
}

// discard closes and removes the file; why is the message's answer from now on.
// What cannot be removed is left for a later sweep.
func (g *message) discard(why error) {
	g.err = why
	g.file.Close()
	os.Remove(g.path())
}

func (g *message) path() string { return filepath.Join(g.maildir.tmp, g.name) }
