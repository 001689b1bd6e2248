package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"starttlsd/admin"
	"starttlsd/config"
	"starttlsd/engine/enginetest"
)

func example(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestExampleConfigurationsAreGood(t *testing.T) {
	if _, err := config.Load("examples/starttlsd.yaml"); err != nil {
		t.Error(err)
	}
	first, _, _ := strings.Cut(example(t, "kubernetes.yaml"), "\n---")
	var configMap struct {
		Data map[string]string `yaml:"data"`
	}
	if err := yaml.Unmarshal([]byte(first), &configMap); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(enginetest.WriteFile(t, "starttlsd.yaml", configMap.Data["starttlsd.yaml"])); err != nil {
		t.Error(err)
	}
	for document := range strings.SplitSeq(example(t, "kubernetes.yaml"), "\n---") {
		var object struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal([]byte(document), &object); err != nil || object.Kind == "" {
			t.Errorf("%+v, %v", object, err)
		}
	}
}

func TestExampleUnitPassesSystemdAnalyze(t *testing.T) {
	enginetest.Need(t, "systemd-analyze")
	dir := t.TempDir()
	unit := strings.ReplaceAll(example(t, "starttlsd.service"), "/usr/local/bin/starttlsd", enginetest.Binary(t))
	for name, text := range map[string]string{"starttlsd.service": unit, "starttlsd.socket": example(t, "starttlsd.socket")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := enginetest.Program(t, "", "systemd-analyze", "verify", "--man=no",
		filepath.Join(dir, "starttlsd.service"), filepath.Join(dir, "starttlsd.socket"))
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestExampleDashboardShowsMetricsThatThereAre: a panel with a name that does not
// exist stays empty for ever.
func TestExampleDashboardShowsMetricsThatThereAre(t *testing.T) {
	text := example(t, "grafana.json")
	if !json.Valid([]byte(text)) {
		t.Fatal("no JSON")
	}
	known := make(map[string]bool)
	for _, name := range admin.MetricNames() {
		known[name] = true
	}
	used := regexp.MustCompile(`\bstarttlsd_[a-z_]+`).FindAllString(text, -1)
	if len(used) < 20 {
		t.Errorf("only %d metrics are shown", len(used))
	}
	for _, name := range used {
		if !known[strings.TrimSuffix(name, "_bucket")] {
			t.Errorf("%s does not exist", name)
		}
	}
}
