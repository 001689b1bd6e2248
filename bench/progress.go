package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progressBar draws on stderr if that is a terminal. finish takes the bar away.
func progressBar(stderr io.Writer) (progress func(done, of int64), finish func()) {
	file, ok := stderr.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil, func() {}
	}
	var bar *progressbar.ProgressBar
	progress = func(done, of int64) {
		if bar == nil {
			if of == 0 {
				of = -1 // unknown
			}
			bar = progressbar.NewOptions64(of, progressbar.OptionSetWriter(stderr), progressbar.OptionShowCount(),
				progressbar.OptionShowIts(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
		}
		_ = bar.Set64(done)
	}
	return progress, func() {
		if bar != nil {
			_ = bar.Finish()
		}
	}
}
