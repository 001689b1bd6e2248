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

// A thousand files go up and come back as they are, passive, active, and with TLS from
// the first byte.
func TestInteropFTPMirrorsWithLftp(t *testing.T) {
	enginetest.Need(t, "lftp")
	const many = 1000
	f := frontFTP(t, startVsftpd(t))
	tree := makeTree(t, many)
	want := filesIn(t, tree)
	if len(want) != many {
		t.Fatalf("%d files, want %d", len(want), many)
	}
	const active = "set ftp:passive-mode no"
	for _, way := range []struct{ name, url, up, down string }{
		{"explicit", "ftp://127.0.0.1:" + f.explicit, "", active},
		{"implicit", "ftps://127.0.0.1:" + f.implicit, active, ""},
	} {
		t.Run(way.name, func(t *testing.T) {
			back := t.TempDir()
			f.lftp(way.url, way.up, "mirror -R --no-perms --parallel=4 '"+tree+"' up/"+way.name)
			f.lftp(way.url, way.down, "mirror --parallel=4 up/"+way.name+" '"+back+"'")
			if there := filesIn(t, f.path("up/"+way.name)); !maps.Equal(there, want) {
				t.Errorf("the server has %d files, and not all as they were", len(there))
			}
			if got := filesIn(t, back); !maps.Equal(got, want) {
				t.Errorf("%d files came back, and not all as they were", len(got))
			}
		})
	}
}

// The same in front of the other server, with fewer files, and removed in the end.
func TestInteropFTPMirrorsWithLftpToPureFTPd(t *testing.T) {
	enginetest.Need(t, "lftp")
	f := frontFTP(t, startPureFTPd(t))
	tree, back := makeTree(t, 100), t.TempDir()
	url := "ftp://127.0.0.1:" + f.explicit
	f.lftp(url, "", "mirror -R --parallel=4 '"+tree+"' up/tree; mirror --parallel=4 up/tree '"+back+"'")
	want := filesIn(t, tree)
	if !maps.Equal(filesIn(t, f.path("up/tree")), want) || !maps.Equal(filesIn(t, back), want) {
		t.Error("not all files are as they were")
	}
	f.lftp(url, "set ftp:passive-mode no", "rm -r up/tree")
	if left := filesIn(t, f.path("up")); len(left) > 0 {
		t.Errorf("%d files are left", len(left))
	}
}
