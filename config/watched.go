package config

import (
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// watched are files that belong together.
type watched struct {
	names []string
	seen  []fs.FileInfo // nil for what is not there
	fresh bool          // one had just changed when it was looked at: it may change again unseen
	since time.Time     // they cannot be used; zero: they can
	told  string        // why they cannot, once that was logged
}

// look takes note of the files as they are, before they are read.
func (w *watched) look() {
	w.seen, w.fresh = w.seen[:0:0], false
	for _, name := range w.names {
		info, err := os.Stat(name) // of what a link leads to
		if err != nil {
			info = nil
		} else if time.Since(info.ModTime()).Abs() < 2*watchEvery {
			w.fresh = true
		}
		w.seen = append(w.seen, info)
	}
}

// changed reports whether they are not as they were read, or have to be read again
// because they could not be used.
func (w *watched) changed() bool {
	if w.fresh || !w.since.IsZero() {
		return true
	}
	return slices.ContainsFunc(w.names, func(name string) bool {
		was := w.seen[slices.Index(w.names, name)]
		info, err := os.Stat(name)
		if err != nil || was == nil {
			return (err != nil) != (was == nil)
		}
		return !os.SameFile(was, info) || info.ModTime() != was.ModTime() || info.Size() != was.Size()
	})
}

// usable takes note of what has come of reading them. What cannot be used for a
// while is logged, once.
func (w *watched) usable(err error, log *slog.Logger) bool {
	now := time.Now()
	if err == nil {
		w.since, w.told = time.Time{}, ""
		return true
	}
	if w.since.IsZero() {
		w.since = now
	}
	if problem := err.Error(); now.Sub(w.since) >= settling && problem != w.told {
		w.told = problem
		log.Error("CANNOT USE THE NEW FILE, the old one stays in force", "files", strings.Join(w.names, ", "), "err", problem)
	}
	return false
}
