package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"starttlsd/engine/enginetest"
)

// lftp runs commands in one session. Data connections resume its TLS session, as
// lftp does by itself.
func (f *ftpFront) lftp(url, settings, commands string) {
	f.t.Helper()
	script := "set cmd:fail-exit yes; set net:max-retries 2; set net:timeout 20; set ssl:ca-file " + f.ca + "; set ssl:verify-certificate yes; " +
		"set ftp:ssl-force yes; set ftp:ssl-protect-data yes; set ftp:charset UTF-8; set file:charset UTF-8; " + settings +
		"; open -u " + f.user + "," + f.password + " " + url + "; " + commands
	succeed(f.t, "", []string{"env", "HOME=" + f.t.TempDir(), "lftp", "--norc", "-c", script})
}

// makeTree makes n files in ten directories: small and larger ones, empty ones, and
// names that are not ASCII.
func makeTree(t *testing.T, n int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprintf("Größe %d", i%10))
		name := fmt.Sprintf([]string{"file%d.bin", "mit Leerzeichen %d", "żółw-%d", "文件%d.txt", "😀%d"}[i%5], i)
		size := []int{0, 1, 100, 4096, 40000}[i/10%5]
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, name), noise(uint64(i), size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A thousand files go up, passive, and come back, active, as they are. With TLS from the
// first byte, and the other way round, fewer do: lftp takes its time for each.
func TestInteropFTPMirrorsWithLftp(t *testing.T) {
	f := frontFTP(t, startVsftpd(t))
	const active = "set ftp:passive-mode no"
	t.Run("explicit", func(t *testing.T) { f.mirror(t, 1000, "ftp://127.0.0.1:"+f.explicit, "", active) })
	t.Run("implicit", func(t *testing.T) { f.mirror(t, 100, "ftps://127.0.0.1:"+f.implicit, active, "") })
}

// The same in front of another server, and removed in the end.
func TestInteropFTPMirrorsWithLftpToPureFTPd(t *testing.T) {
	f := frontFTP(t, startPureFTPd(t))
	url := "ftp://127.0.0.1:" + f.explicit
	f.mirror(t, 30, url, "", "set ftp:passive-mode no")
	f.lftp(url, "", "rm -r up/tree")
	if left := filesIn(t, f.path("up")); len(left) > 0 {
		t.Errorf("%d files are left", len(left))
	}
}

// mirror brings n files up, with some settings of lftp, and down again, with others.
func (f *ftpFront) mirror(t *testing.T, n int, url, up, down string) {
	t.Helper()
	enginetest.Need(t, "lftp")
	tree, back := makeTree(t, n), t.TempDir()
	want := filesIn(t, tree)
	if len(want) != n {
		t.Fatalf("%d files, want %d", len(want), n)
	}
	f.lftp(url, up, "mirror -R --delete --no-perms --parallel=10 '"+tree+"' up/tree")
	f.lftp(url, down, "mirror --parallel=10 up/tree '"+back+"'")
	if there := filesIn(t, f.path("up/tree")); !maps.Equal(there, want) {
		t.Errorf("the server has %d files, and not all as they were", len(there))
	}
	if got := filesIn(t, back); !maps.Equal(got, want) {
		t.Errorf("%d files came back, and not all as they were", len(got))
	}
}
