package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

func TestMain(m *testing.M) {
	// gnet's worker pool is there from the start.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.Cleanup(func(status int) {
		enginetest.RemoveBinary()
		os.Exit(status)
	}))
}

// command runs the command in this process, to its end.
func command(args ...string) (status int, stdout, stderr string) {
	var o, e bytes.Buffer
	status = run(args, &o, &e)
	return status, o.String(), e.String()
}

// listener is a configuration file's line for one on addr that delivers into dir.
func listener(addr, dir string) string {
	return fmt.Sprintf("  - {address: %q, protocol: smtp, backend: %q}\n", addr, "maildir:"+dir)
}

// certificates is a configuration file's block for one certificate.
func certificates(cert, key string) string {
	return fmt.Sprintf("tls: {certificates: [{cert: %q, key: %q}]}\n", cert, key)
}

func TestVersionNamesTheProgramAndItsGo(t *testing.T) {
	status, stdout, stderr := command("-version")
	if status != exitOK || !strings.HasPrefix(stdout, "starttlsd ") || !strings.Contains(stdout, " go1.") || stderr != "" {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

func TestHelpIsNoMistake(t *testing.T) {
	status, _, stderr := command("-help")
	for _, flag := range []string{"-config FILE", "-check", "-print-config", "-version"} {
		if !strings.Contains(stderr, flag) {
			t.Errorf("%s is not explained in %q", flag, stderr)
		}
	}
	if status != exitOK {
		t.Errorf("status %d", status)
	}
}

func TestWrongUseIsRefused(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-verbose"}, "-verbose"},
		{[]string{"-config"}, "-config"},
		{[]string{"-check=perhaps"}, "perhaps"},
		{[]string{"starttlsd.yaml"}, `unexpected argument "starttlsd.yaml"; the configuration is given with -config`},
		{[]string{"-version", "now"}, `unexpected argument "now"`},
	} {
		status, stdout, stderr := command(test.args...)
		if status != exitUsage || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: status %d, stdout %q, stderr %q", test.args, status, stdout, stderr)
		}
	}
}

func TestCheckLooksAtTheCertificatesAndStartsNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	occupied := occupy(t)
	cert, key := tlstest.WritePEM(t.TempDir(), tlstest.Certificate("a.example"))
	good := certificates(cert, key) + "listeners:\n" + listener(occupied, "./drop")
	status, stdout, stderr := command("-check", "-config", enginetest.WriteFile(t, "good.yaml", good))
	if status != exitOK || !strings.HasSuffix(stdout, "\nconfiguration ok\n") || stderr != "" {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
	bad := strings.Replace(good, key, cert, 1)
	status, stdout, stderr = command("-check", "-config", enginetest.WriteFile(t, "bad.yaml", bad))
	if status != exitUsage || stdout != "" || !strings.Contains(stderr, "holds a certificate, not a private key") {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
	if made, _ := os.ReadDir("."); len(made) > 0 {
		t.Errorf("-check made %v", made)
	}
}

func TestPrintedConfigurationIsTakenBack(t *testing.T) {
	for name, args := range map[string][]string{
		"defaults":   {"-print-config"},
		"everything": {"-print-config", "-config", "config/testdata/full.yaml"},
	} {
		status, printed, stderr := command(args...)
		if status != exitOK || stderr != "" {
			t.Errorf("%s: status %d, stderr %q", name, status, stderr)
		}
		file := enginetest.WriteFile(t, "printed.yaml", printed)
		status, again, stderr := command("-print-config", "-config", file)
		if status != exitOK || stderr != "" || again != printed {
			t.Errorf("%s: status %d, stderr %q, first\n%s\nthen\n%s", name, status, stderr, printed, again)
		}
	}
}

// occupy takes a port for the time of the test.
func occupy(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().String()
}

// freeAddress was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestStartErrorIsOneLineAndNothingIsStarted(t *testing.T) {
	dir := t.TempDir()
	cert, key := tlstest.WritePEM(dir, tlstest.Certificate("a.example"))
	_, otherKey := tlstest.WritePEM(t.TempDir(), tlstest.Certificate("b.example"))
	missing := filepath.Join(dir, "missing")
	first, busy := freeAddress(t), occupy(t)
	good := "listeners:\n" + listener(first, filepath.Join(dir, "drop"))

	for name, test := range map[string]struct {
		yaml string
		want []string
	}{
		"busy port":        {good + listener(busy, filepath.Join(dir, "drop")), []string{"cannot listen on " + busy, "address already in use"}},
		"foreign address":  {good + listener("192.0.2.1:25", filepath.Join(dir, "drop")), []string{"cannot listen on 192.0.2.1:25"}},
		"no parent":        {good + listener("127.0.0.1:0", missing+"/drop"), []string{missing + "/drop", "no such file"}},
		"maildir is file":  {good + listener("127.0.0.1:0", key), []string{key, "not a directory"}},
		"no certificate":   {certificates(missing, key) + good, []string{"bad.yaml:1:", "cannot read " + missing}},
		"unreadable":       {certificates(dir, key) + good, []string{"bad.yaml:1:", "cannot read " + dir, "is a directory"}},
		"key mismatch":     {certificates(cert, otherKey) + good, []string{"bad.yaml:1:", otherKey + " does not belong to the certificate in " + cert}},
		"bad value":        {good + "limits: {command: fast}\n", []string{"bad.yaml:3:", "command", "fast"}},
		"value of range":   {good + "limits:\n  linger: 2h\n", []string{"bad.yaml:4:", "linger", "2h is out of range"}},
		"unknown key":      {good + "drian: 3s\n", []string{"bad.yaml:3:1", "drian"}},
		"unknown protocol": {strings.Replace(good, "smtp", "smpt", 1), []string{"bad.yaml:2:", `"smpt" is not known`}},
		"no YAML":          {"listeners: [", []string{"bad.yaml:1:"}},
		"nothing":          {"", []string{"bad.yaml", "nothing is served"}},
	} {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := command("-config", enginetest.WriteFile(t, "bad.yaml", test.yaml))
			if status != exitUsage || stdout != "" {
				t.Errorf("status %d, stdout %q", status, stdout)
			}
			if !strings.HasPrefix(stderr, "starttlsd: ") || strings.Count(stderr, "\n") != 1 || !strings.HasSuffix(stderr, "\n") {
				t.Errorf("not one line: %q", stderr)
			}
			for _, want := range test.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q does not say %q", stderr, want)
				}
			}
			ln, err := net.Listen("tcp", first)
			if err != nil {
				t.Fatal("the first listener is still there:", err)
			}
			_ = ln.Close()
			if left := filesBelow(t, dir); left != 2 {
				t.Errorf("%d files are left instead of certificate and key", left)
			}
		})
	}
}

// filesBelow counts files, not directories.
func filesBelow(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestUnreadableConfigurationIsOneLine(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(dir, "none.yaml"): "no such file or directory",
		dir:                             "is a directory",
	} {
		status, _, stderr := command("-config", path)
		if status != exitUsage || stderr != fmt.Sprintf("starttlsd: %s: %s; name a readable file with -config\n", path, want) {
			t.Errorf("status %d, stderr %q", status, stderr)
		}
	}
}
