package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"starttlsd/bench/peers"
)

// The README shows the results that are in the repository, those where starttlsd
// is slower included.
func TestREADMEHasTheTableOfTheResults(t *testing.T) {
	var table bytes.Buffer
	if err := peers.TableMain(t.Context(), []string{"-results", "results/results.json"}, &table, io.Discard); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), table.String()) {
		t.Errorf("README.md has another table than this, made by go run ./bench table:\n%s", &table)
	}
}
