package peers

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFTPTableComparesBothTogether(t *testing.T) {
	f := &ftpFigures{
		cpu: map[string]figures{
			own: {fileDownOne: {0.6, 0.5, 9}}, both: {fileDownOne: {1, 1.2, 9}}, vsftpd: {fileDownOne: {1.5, 1.4, 9}},
		},
		rate: map[string]figures{both: {fileDownOne: {900}}, vsftpd: {fileDownOne: {450}}},
		tls:  map[string]string{own: "TLS 1.3"},
	}
	var out bytes.Buffer
	if err := (&ftpOptions{rounds: 3, mib: 64}).print(&out, f); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	for _, want := range []string{
		"starttlsd: TLS 1.3",
		"download, 1 connection, CPU s/GiB 0.6 1.2 1.5 (× 0.80)",
		"download, 1 connection, MiB/s – 900 450 (× 2.00)",
		"idle session, KB – – –",
	} {
		if !strings.Contains(strings.Join(lines, "\n"), want+"\n") {
			t.Errorf("no line %q in\n%s", want, &out)
		}
	}
}

func TestFilesAreThereAndUploadsGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "files")
	if err := makeFiles(dir, map[string]int{"a": 3, "b": 0}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "a")); err != nil || info.Size() != 3 {
		t.Error(info, err)
	}
	if err := os.WriteFile(filepath.Join(dir, uploads, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := removeUploads(dir); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestInteropFTPContestantsTransferAndLeaveNothing(t *testing.T) {
	if os.Getenv("STARTTLSD_INTEROP") != "1" {
		t.Skip("starts other servers: set STARTTLSD_INTEROP=1")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	l := testLab(t)
	var out bytes.Buffer
	o := &ftpOptions{rounds: 1, mib: 8, idle: 4, settle: 100 * time.Millisecond}
	if err := o.run(t.Context(), l, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "NaN") || strings.Contains(text, "Inf") || strings.Count(text, "–") != len(ftpWays) {
		t.Errorf("figures are missing:\n%s", text) // but for the rates of starttlsd alone, which has none without a server
	}
	var left []string // a session of vsftpd ends a moment after its client
	for range 100 {
		if left = processesIn(l.dir); len(left) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("processes left: %q", left)
}
