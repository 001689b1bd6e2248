package config

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustParse(t *testing.T, yaml string) *Config {
	t.Helper()
	c, err := parse("starttlsd.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// checkRoundTrip wants what c prints to load as c, and to print the same.
func checkRoundTrip(t *testing.T, c *Config) {
	t.Helper()
	printed, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	back, err := parse("printed.yaml", printed)
	if err != nil {
		t.Fatalf("%v in\n%s", err, printed)
	}
	want, got := *c, *back
	want.src, got.src = source{}, source{} // where things stand may differ
	if !reflect.DeepEqual(want, got) {
		t.Fatalf("printed\n%s\n got %+v\nwant %+v", printed, got, want)
	}
}

func TestDefaultIsValidAndRoundTrips(t *testing.T) {
	c := Default()
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	checkRoundTrip(t, c)
	if len(c.Listeners) != 2 || c.Listeners[0].TLS != StartTLS || c.Listeners[1].TLS != Implicit {
		t.Errorf("listeners %+v", c.Listeners)
	}
	if dir := c.Listeners[0].Maildir(); dir != "./maildir" {
		t.Errorf("maildir %q", dir)
	}
}

// TestFullFileShowsTheDefaults keeps testdata/full.yaml, which the README
// quotes, in step with the code: its limits, drain and log are the defaults.
func TestFullFileShowsTheDefaults(t *testing.T) {
	c, err := Load("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	checkRoundTrip(t, c)
	d := defaults()
	if c.Limits != d.Limits || c.Drain != d.Drain || c.Log != d.Log {
		t.Errorf("\n got %+v %v %+v\nwant %+v %v %+v", c.Limits, c.Drain, c.Log, d.Limits, d.Drain, d.Log)
	}
	if c.TLS.Profile != d.TLS.Profile || c.TLS.StrictSNI != d.TLS.StrictSNI || c.TLS.ClientAuth != d.TLS.ClientAuth {
		t.Errorf("tls %+v", c.TLS)
	}
	shown := make(map[string]bool)
	for path := range c.src.nodes {
		shown[regexp.MustCompile(`\[\d+\]`).ReplaceAllString(path, "[0]")] = true
	}
	for path := range keysOf(reflect.TypeFor[Config](), "") {
		if !shown[path] && !strings.HasPrefix(path, "listeners[0].limits.") {
			t.Errorf("%s is missing in the example", path)
		}
	}
	options := c.Listeners[2].BackendOptions
	options.CA, options.ServerName, options.Cert, options.Key = "", "", "", ""
	if options != defaultBackendOptions() {
		t.Errorf("backend_options %+v", options)
	}
	if l := c.Listeners[3]; l.RequireTLS != TLSForData || l.Active || l.DataSession != ResumeControl {
		t.Errorf("ftp %+v", l)
	}
}

// keysOf is the path of every value there can be, with [0] for the items of a list.
func keysOf(block reflect.Type, path string) map[string]bool {
	all := make(map[string]bool)
	for _, f := range fields(block) {
		key, typ := join(path, keyOf(f)), f.Type
		if typ.Kind() == reflect.Slice {
			key, typ = key+"[0]", typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			all[key] = true
			continue
		}
		for k := range keysOf(typ, key) {
			all[k] = true
		}
	}
	return all
}

// TestAnyFileNameRoundTrips: what YAML would read as something else is quoted.
func TestAnyFileNameRoundTrips(t *testing.T) {
	for _, name := range []string{
		"a b", " a ", "a: b", "a:", ":a", "#a", "a #b", "'a'", `"a"`, `a"b'c`, "true", "no", "null", "~", "~/a", "1", "0x1", "1e3", ".5",
		"1_0", "2001-01-01", "@a", "*a", "&a", "!a", "%a", "`a", "- a", "-", "?", "? a", "{a}", "[a", "a,b", "a]", "|", ">", "=", "<<", "---",
		`a\nb`, `C:\a`, "ü", "日本", "\u2028", "\ufeff", "10s", "1MiB", "...", "a  b", "\u00a0",
	} {
		t.Run(name, func(t *testing.T) {
			c := Default()
			c.TLS.ClientCA = name
			c.TLS.Certificates = []KeyPair{{Cert: name, Key: name}}
			c.Listeners[0].Backend = "maildir:" + name
			checkRoundTrip(t, c)
		})
	}
}

func TestListenerLimitsComeBeforeTheGlobalOnes(t *testing.T) {
	for _, order := range []string{
		globalLimits + twoListeners,
		twoListeners + globalLimits, // the order of the blocks does not matter
	} {
		c := mustParse(t, order)
		want := defaultLimits().SessionLimits
		want.Command, want.MessageSize, want.MaxConnections = time.Minute, 10*miB, 7
		if c.Limits.SessionLimits != want {
			t.Errorf("global %+v", c.Limits)
		}
		want.settle("smtp")
		if got := c.Listeners[1].Limits; got != want {
			t.Errorf("listeners[1] %+v, want the global ones", got)
		}
		want.MessageSize, want.Line = 1e6, 4*kiB
		if got := c.Listeners[0].Limits; got != want {
			t.Errorf("listeners[0] %+v", got)
		}
		checkRoundTrip(t, c)
	}
}

const (
	globalLimits = `
limits:
  max_connections: 7
  command: 60s
  message_size: 10MiB
`
	twoListeners = `
listeners:
  - address: 127.0.0.1:25
    protocol: smtp
    backend: maildir:in
    limits:
      message_size: 1MB
      line: 4096
  - address: ":465"
    protocol: smtp
    tls: implicit
    backend: maildir:in
    limits:
      # message_size: 1MB
`
)

func TestListenerDefaults(t *testing.T) {
	l := mustParse(t, head).Listeners[0]
	want := Listener{
		Address: "127.0.0.1:0", Protocol: "smtp", TLS: StartTLS, RequireTLS: TLSOptional, Backend: "maildir:m",
		Limits: defaultLimits().SessionLimits,
	}
	want.Limits.Command, want.Limits.Line, want.Limits.Idle = 5*time.Minute, 2*kiB, 5*time.Minute
	if !reflect.DeepEqual(l, want) {
		t.Errorf("got %+v, want %+v", l, want)
	}
}

func TestPortZeroMayBeGivenTwice(t *testing.T) {
	mustParse(t, `listeners:
  - {address: "127.0.0.1:0", protocol: smtp, backend: "maildir:m"}
  - {address: "127.0.0.1:0", protocol: smtp, backend: "maildir:m"}
`)
}

func TestCheckOfAConfigMadeInGoNamesThePath(t *testing.T) {
	c := Default()
	c.Listeners[1].Limits.Line = 1
	const want = "listeners[1].limits.line: 1 is out of range; use 512 to 16KiB"
	if err := c.Check(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLoadSaysWhyAFileCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.yaml")
	for path, want := range map[string]string{
		missing: missing + ": no such file or directory; name a readable file with -config",
		dir:     dir + ": is a directory; name a readable file with -config",
	} {
		if _, err := Load(path); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestSystemNameCanAlwaysBeSaid(t *testing.T) {
	if err := checkHostname(systemName()); err != nil {
		t.Error(err)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]struct {
		size Size
		text string
	}{
		"0": {0, "0"}, "500": {500, "500"}, "1023": {1023, "1023"}, "1024": {kiB, "1KiB"},
		"25MiB": {25 * miB, "25MiB"}, "25 MiB": {25 * miB, "25MiB"}, "25MB": {25e6, "25000000"},
		"1kB": {1000, "1000"}, "1KB": {1000, "1000"}, "3GiB": {3 * giB, "3GiB"}, "1GB": {1e9, "1000000000"},
		"1536KiB": {1536 * kiB, "1536KiB"}, "9223372036854775807": {math.MaxInt64, "9223372036854775807"},
	} {
		got, err := parseSize(text)
		if err != nil || got != want.size || got.String() != want.text {
			t.Errorf("%q: %d %q %v", text, got, got, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1KiB", "+1", "1.5MiB", "1mib", "1 K", "0x10", "1_000", "9223372036854775808", "9007199254740992KiB"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestDurationsArePrintedShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 10 * time.Second: "10s", 5 * time.Minute: "5m", 90 * time.Second: "1m30s", time.Hour: "1h",
		time.Hour + time.Second: "1h0m1s", 20 * time.Hour: "20h", 70 * time.Minute: "1h10m", 100 * time.Millisecond: "100ms",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("%d is %s, want %s", d, got, want)
		}
	}
}

// FuzzLoad holds that reading never panics, that an error is one line, and
// that what loads prints as a file that loads as the same.
func FuzzLoad(f *testing.F) {
	for _, b := range slices.Concat(brokenFiles, brokenBackends, brokenFTP) {
		f.Add([]byte(b.yaml))
	}
	full, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte(globalLimits + twoListeners))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("starttlsd.yaml", data)
		if err == nil {
			checkRoundTrip(t, c)
			return
		}
		for _, r := range err.Error() {
			if r < ' ' {
				t.Fatalf("control character in error %q", err)
			}
		}
	})
}

// The README shows that file as it is.
func TestREADMEShowsTheFullFile(t *testing.T) {
	full, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), string(full)) {
		t.Error("README.md has another text than testdata/full.yaml")
	}
}
