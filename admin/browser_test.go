package admin

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"starttlsd/engine/enginetest"
)

// browser is a session of WebDriver (https://www.w3.org/TR/webdriver2/).
type browser struct {
	t   *testing.T
	url string
}

// call does a command and puts its value into v.
func (b *browser) call(method, path string, body, v any) {
	b.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	if body == nil {
		text = nil
	}
	req, err := http.NewRequest(method, b.url+path, bytes.NewReader(text))
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		b.t.Fatalf("%s %s: %s", method, path, answer)
	}
	if v != nil {
		if err := json.Unmarshal(answer, &struct{ Value any }{v}); err != nil {
			b.t.Fatalf("%s: %v", answer, err)
		}
	}
}

type object map[string]any

// startBrowser starts Chromium, headless.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	enginetest.Need(t, "chromium", "chromedriver")
	port := enginetest.FreePort(t)
	enginetest.Daemon(t, "chromedriver", "--port="+port)
	enginetest.Listens(t, port)
	b := &browser{t, "http://127.0.0.1:" + port}
	var session struct{ SessionID string }
	b.call("POST", "/session", object{"capabilities": object{"alwaysMatch": object{
		"goog:loggingPrefs": object{"browser": "ALL"},
		"goog:chromeOptions": object{"args": []string{
			"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(),
		}},
	}}}, &session)
	b.url += "/session/" + session.SessionID
	t.Cleanup(func() {
		b.call("DELETE", "", nil, nil)
		http.DefaultClient.CloseIdleConnections()
	})
	return b
}

func (b *browser) run(script string, v any) {
	b.t.Helper()
	b.call("POST", "/execute/sync", object{"script": script, "args": []any{}}, v)
}

func (b *browser) devtools(cmd string, params object) {
	b.t.Helper()
	b.call("POST", "/goog/cdp/execute", object{"cmd": cmd, "params": params}, nil)
}

// look sets the size and the colours of the window.
func (b *browser) look(width, height int, colours string) {
	b.t.Helper()
	b.devtools("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
	b.devtools("Emulation.setEmulatedMedia", object{"features": []object{{"name": "prefers-color-scheme", "value": colours}}})
}

// until waits for a script to return true.
func (b *browser) until(what, script string) {
	b.t.Helper()
	enginetest.Eventually(b.t, what, func() (ok bool) {
		b.run(script, &ok)
		return ok
	})
}

// picture takes one of the whole page, where somebody wants to look at it.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("STARTTLSD_SCREENSHOTS")
	if dir == "" {
		dir = b.t.TempDir()
	}
	var shot struct{ Data string }
	b.call("POST", "/goog/cdp/execute", object{"cmd": "Page.captureScreenshot", "params": object{"captureBeyondViewport": true}}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil || len(png) < 10_000 {
		b.t.Errorf("picture %s: %d bytes, %v", name, len(png), err)
	}
}

func TestInteropStatusPageInABrowser(t *testing.T) {
	b := startBrowser(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Uint64
	options := Options{Status: func() Status { return busy(n.Add(1)) }, Metrics: sample}
	s := serveOn(t, ln, options)
	address := ln.Addr().String()
	b.call("POST", "/url", object{"url": "http://" + address + "/"}, nil)

	b.until("a live page", `return document.getElementById("live").textContent === "live"`)
	var before string
	b.run(`return document.querySelector("[data-n=open]").textContent`, &before)
	b.until("figures that change by themselves", fmt.Sprintf(`return document.querySelector("[data-n=open]").textContent !== %q`, before))
	b.until("a chart with points", `return document.getElementById("line-upgrades").getAttribute("points").split(" ").length > 3`)
	for script, want := range map[string]string{
		`return document.querySelectorAll("#listeners tr").length + ""`:            "3",
		`return document.querySelector("#refusals th").textContent`:                "203.0.113.9",
		`return document.querySelectorAll("#refusals tr")[1].cells[4].textContent`: hostile,
		`return document.querySelectorAll("meter").length + ""`:                    "2",
		`return document.title`:               "mx.example.org · starttlsd",
		`return document.scripts.length + ""`: "1",
	} {
		var got string
		if b.run(script, &got); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	for _, colours := range []string{"light", "dark"} {
		for _, size := range [][2]int{{1280, 900}, {390, 844}} {
			b.look(size[0], size[1], colours)
			var wide bool
			if b.run(`return document.documentElement.scrollWidth > innerWidth`, &wide); wide {
				t.Errorf("at %d pixels the page scrolls sideways", size[0])
			}
			b.picture(fmt.Sprintf("status-%s-%d", colours, size[0]))
		}
	}
	var ground string
	if b.run(`return getComputedStyle(document.body).backgroundColor`, &ground); ground != "rgb(18, 23, 26)" {
		t.Errorf("dark is %s", ground)
	}

	var log []struct{ Level, Message string }
	b.call("POST", "/se/log", object{"type": "browser"}, &log)
	for _, line := range log {
		t.Errorf("the browser complains: %s %s", line.Level, line.Message)
	}

	s.Close()
	<-s.done
	b.until("the loss of the stream shown", `return document.getElementById("live").textContent.includes("connection lost")`)
	ln, err = net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, ln, options)
	b.until("a live page again", `return document.getElementById("live").textContent === "live"`)
}
