package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"starttlsd/engine/enginetest"
)

// curl is one transfer, with more arguments. That of data connections has to be
// passive: over TLS curl 7.88 takes active ones from no server.
func (f *ftpFront) curl(more ...string) []string {
	return append([]string{"curl", "-sS", "--ssl-reqd", "--cacert", f.ca, "-u", f.user + ":" + f.password, "--max-time", "40"}, more...)
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// With TLS 1.2, curl takes no session tickets, so that its data connections cannot resume.
func TestInteropFTPWithCurl(t *testing.T) {
	enginetest.Need(t, "curl")
	for _, start := range realFTPs {
		f := frontFTP(t, start(t))
		t.Run(f.name, func(t *testing.T) {
			for name, way := range map[string][]string{
				"EPSV":     {"ftp://127.0.0.1:" + f.explicit + "/"},
				"PASV":     {"ftp://127.0.0.1:" + f.explicit + "/", "--disable-epsv", "--no-ftp-skip-pasv-ip"},
				"implicit": {"ftps://127.0.0.1:" + f.implicit + "/"},
				"TLS 1.2":  {"ftp://127.0.0.1:" + f.address + "/", "--tls-max", "1.2"},
			} {
				t.Run(name, func(t *testing.T) { f.curlSuite(t, way[0], way[1:]) })
			}
		})
	}
}

// curlSuite is what curl can do, on one way to the server.
func (f *ftpFront) curlSuite(t *testing.T, url string, options []string) {
	run := func(wants []string, more ...string) string {
		t.Helper()
		return succeed(t, "", f.curl(append(more, options...)...), wants...)
	}
	local := t.TempDir()
	up, down := filepath.Join(local, "up"), filepath.Join(local, "down")
	content := noise(1, 300_001)
	if err := os.WriteFile(up, content, 0o600); err != nil {
		t.Fatal(err)
	}
	run(nil, "-T", up, url+"up/file")
	f.has("up/file", content)
	run([]string{"file", "300001"}, url+"up/")
	run([]string{"file\n"}, "--list-only", url+"up/")
	run(nil, "-o", down, url+"up/file")
	if !bytes.Equal(read(t, down), content) {
		t.Error("another file came back")
	}

	// Either way the rest of a file is what is missing.
	if err := os.Truncate(down, 100_000); err != nil {
		t.Fatal(err)
	}
	run(nil, "-C", "-", "-o", down, url+"up/file")
	if !bytes.Equal(read(t, down), content) {
		t.Error("resumed, another file came back")
	}
	if err := os.Truncate(f.path("up/file"), 123_456); err != nil {
		t.Fatal(err)
	}
	run(nil, "-C", "-", "-T", up, url+"up/file")
	f.has("up/file", content)

	f.curlText(t, url, run)
	run(nil, "-Q", "RNFR up/file", "-Q", "RNTO up/renamed", "-Q", "DELE up/renamed", "-Q", "DELE up/text", url)
	if left := filesIn(t, f.path("up")); len(left) > 0 {
		t.Errorf("%d files are left", len(left))
	}
}

// curlText sends a text in ASCII, whose lines end with CRLF on the way.
func (f *ftpFront) curlText(t *testing.T, url string, run func([]string, ...string) string) {
	t.Helper()
	text := []byte(strings.Repeat("a line\n", 20_000))
	local := enginetest.WriteFile(t, "text", string(text))
	run(nil, "--use-ascii", "--crlf", "-T", local, url+"up/text")
	f.has("up/text", text)
	back := filepath.Join(t.TempDir(), "back")
	run(nil, "--use-ascii", "-o", back, url+"up/text")
	if got := bytes.ReplaceAll(read(t, back), []byte("\r\n"), []byte("\n")); !bytes.Equal(got, text) {
		t.Errorf("a text of %d bytes came back with %d", len(text), len(got))
	}
}

// What the server refuses is told, and the session goes on: curl uses it again.
func TestInteropFTPWithCurlAfterAMissingFile(t *testing.T) {
	enginetest.Need(t, "curl")
	for _, start := range realFTPs {
		f := frontFTP(t, start(t))
		f.put("there", noise(2, 1000))
		url := "ftp://127.0.0.1:" + f.explicit + "/"
		out, err := enginetest.Program(t, "", f.curl("-v", url+"missing", "-o", "/dev/null", url+"there", "-o", "/dev/null")...)
		if err != nil {
			t.Error(err)
		}
		for _, want := range []string{"< 550 ", "< 226", "Re-using existing connection"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is not in %s", f.name, want, out)
			}
		}
	}
}

// Credentials and files never go in clear where TLS is required, and do where it is not.
func TestInteropFTPWithCurlInClear(t *testing.T) {
	enginetest.Need(t, "curl")
	f := frontFTP(t, startVsftpd(t))
	content := noise(3, 100_000)
	f.put("file", content)
	clear := func(port string, more ...string) (string, error) {
		return enginetest.Program(t, "", append([]string{"curl", "-sS", "-u", f.user + ":" + f.password, "--max-time", "20",
			"ftp://127.0.0.1:" + port + "/file"}, more...)...)
	}
	if _, err := clear(f.explicit, "-o", os.DevNull); err == nil || strings.Contains(f.log(), "USER") {
		t.Errorf("a login in clear: %v", err)
	}
	for name, way := range map[string][]string{"passive": nil, "active": {"-P", "-"}, "PORT": {"-P", "-", "--disable-eprt"}} {
		down := filepath.Join(t.TempDir(), "down")
		if out, err := clear(f.clear, append(way, "-o", down)...); err != nil {
			t.Errorf("%s: %v %s", name, err, out)
		} else if !bytes.Equal(read(t, down), content) {
			t.Errorf("%s: another file came", name)
		}
	}
	if strings.Contains(f.Log(), f.password) {
		t.Error("a password is in our log")
	}
}
