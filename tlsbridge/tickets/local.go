package tickets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"
)

// auto is the store of a process on its own.
type auto struct{}

func (auto) kind() string  { return "auto" }
func (auto) changes() bool { return false }
func (auto) close()        {}

func (auto) turn(h *hand, n int64) {
	h.own(n)
	h.keep(n)
}

func (auto) poll(context.Context, int64, map[int64][]secret) (func(*hand, int64), error) {
	return nil, nil
}

const (
	minMaster = 32
	maxMaster = 64 << 10

	howToMake = "make it by openssl rand -base64 48, and bring it to all nodes"
)

// file is a store that derives everything from the master secret in a file.
type file struct {
	path    string
	rotate  time.Duration
	log     *slog.Logger
	masters []master // the newest last
}

type master struct {
	text    []byte
	from    int64 // the generation from which on it makes tickets
	retired int64 // the generation that it was replaced in, if it was
}

func openFile(path string, rotate time.Duration, log *slog.Logger) (*file, error) {
	f := &file{path: path, rotate: rotate, log: log}
	text, exposed, err := f.read()
	if err != nil {
		return nil, err
	}
	f.masters = []master{{text: text}}
	f.warn(exposed)
	return f, nil
}

// read returns the master secret, without the space around it, and whether everyone may
// read it.
func (f *file) read() (text []byte, exposed bool, err error) {
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, fmt.Errorf("there is no master secret for session tickets in %q: %s", f.path, howToMake)
	case err != nil:
		return nil, false, err
	case !info.Mode().IsRegular(): // opening a pipe would wait
		return nil, false, fmt.Errorf("the master secret for session tickets is to be in a file, which %s is not", f.path)
	}
	r, err := os.Open(f.path)
	if err != nil {
		return nil, false, err
	}
	defer r.Close()
	text, err = io.ReadAll(io.LimitReader(r, maxMaster+1))
	if err != nil {
		return nil, false, err
	}
	text = bytes.TrimSpace(text)
	if len(text) < minMaster || len(text) > maxMaster {
		return nil, false, fmt.Errorf("the master secret for session tickets in %s has to be of %d bytes to 64 KiB: %s", f.path, minMaster, howToMake)
	}
	return text, info.Mode().Perm()&0o004 != 0, nil
}

func (f *file) warn(exposed bool) {
	if exposed {
		f.log.Warn("master secret of session tickets is readable by everyone: chmod o-r", "file", f.path)
	}
}

func (f *file) kind() string  { return "file" }
func (f *file) changes() bool { return true }
func (f *file) close()        {}

// poll reads the file.
func (f *file) poll(context.Context, int64, map[int64][]secret) (func(*hand, int64), error) {
	text, exposed, err := f.read()
	if err != nil {
		return nil, err
	}
	return func(_ *hand, n int64) { f.replace(text, exposed, n) }, nil
}

// replace takes text for the master secret from generation n+2 on.
func (f *file) replace(text []byte, exposed bool, n int64) {
	last := &f.masters[len(f.masters)-1]
	if bytes.Equal(last.text, text) {
		return
	}
	last.retired = n
	f.masters = append(f.masters, master{text: text, from: n + 2})
	f.masters = f.masters[max(0, len(f.masters)-maxSecrets):]
	f.log.Info("master secret of session tickets has changed: new tickets are by it from the next generation but one on",
		"keys", f.kind(), "file", f.path, "from", time.Unix(0, (n+2)*int64(f.rotate)))
	f.warn(exposed)
}

// turn derives all generations anew. A master that was replaced in generation g makes
// tickets until the end of g+1 at most, which are opened until the end of g+3.
func (f *file) turn(h *hand, n int64) {
	f.masters = slices.DeleteFunc(f.masters, func(m master) bool { return m.retired != 0 && n > m.retired+1+past })
	clear(h.gens)
	for g := n - past; g <= n+1; g++ {
		for _, m := range f.masters {
			s := &held{secret: f.generation(m, g), shared: true, ripe: true}
			if m.from <= g || len(h.gens[g]) == 0 {
				h.gens[g] = append([]*held{s}, h.gens[g]...)
			} else {
				h.gens[g] = append(h.gens[g], s)
			}
		}
	}
}

func (f *file) generation(m master, g int64) secret {
	return derive(m.text, fmt.Sprintf("starttlsd session tickets, every %v, generation %d", f.rotate, g))
}
