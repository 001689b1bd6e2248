package config

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// with is a listener with one more key, in line 5.
func with(protocol, more string) string {
	return fmt.Sprintf("listeners:\n  - address: 127.0.0.1:0\n    protocol: %s\n    backend: tcp://127.0.0.1:1\n    %s\n", protocol, more)
}

// brokenFTP are mistakes about what is different with ftp.
var brokenFTP = []brokenFile{
	{
		"truth with ftp", with("ftp", "require_tls: true"),
		":5:18: listeners[0].require_tls: true is not for ftp; use control, data or off",
	},
	{
		"untruth with ftp", with("ftp", "require_tls: false"),
		":5:18: listeners[0].require_tls: false is not for ftp; use control, data or off",
	},
	{
		"a word without ftp", with("imap", "require_tls: control"),
		":5:18: listeners[0].require_tls: control is not for imap; use true or false",
	},
	{
		"off without ftp", with("smtp", "require_tls: off"),
		":5:18: listeners[0].require_tls: off is not for smtp; use true or false",
	},
	{
		"truth in quotes", with("smtp", `require_tls: "true"`),
		":5:18: listeners[0].require_tls: want true or false, without quotes, or for ftp control, data or off",
	},
	{
		"another word", with("ftp", "require_tls: yes"),
		":5:18: listeners[0].require_tls: want true, not yes, or for ftp control, data or off",
	},
	{
		"number in place of truth", with("smtp", "require_tls: 1"),
		":5:18: listeners[0].require_tls: want true or false, without quotes, or for ftp control, data or off",
	},
	{
		"require_tls without value", with("ftp", "require_tls:"),
		":5:18: listeners[0].require_tls: no value; give one or remove the line",
	},
	{
		"passive without ftp", with("imap", "passive: {ports: 50000-50100}"),
		":5:14: listeners[0].passive: is for ftp, not for imap; remove it",
	},
	{
		"active without ftp", with("smtp", "active: true"),
		":5:13: listeners[0].active: is for ftp, not for smtp; remove it",
	},
	{
		"data_session without ftp", with("nntp", "data_session: resume"),
		":5:19: listeners[0].data_session: is for ftp, not for nntp; remove it",
	},
	{
		"passive is no block", with("ftp", "passive: 50000-50100"),
		":5:14: listeners[0].passive: a block of keys is wanted here: ports, address",
	},
	{
		"ports are a list", with("ftp", "passive: {ports: [50000, 50001]}"),
		":5:22: listeners[0].passive.ports: want ports, for instance 50000-50100, or any",
	},
	{
		"ports are empty", with("ftp", `passive: {ports: ""}`),
		":5:22: listeners[0].passive.ports: missing; write for instance 50000-50100, or any",
	},
	{
		"port 0", with("ftp", "passive: {ports: 0}"),
		`:5:22: listeners[0].passive.ports: "0" is not a range of ports from 1 to 65535; write for instance 50000-50100, or any`,
	},
	{
		"negative port", with("ftp", "passive: {ports: -5}"),
		`:5:22: listeners[0].passive.ports: "-5" is not a range of ports from 1 to 65535; write for instance 50000-50100, or any`,
	},
	{
		"port too large to be one", with("ftp", "passive: {ports: 50000-65536}"),
		`:5:22: listeners[0].passive.ports: "50000-65536" is not a range of ports from 1 to 65535; write for instance 50000-50100, or any`,
	},
	{
		"ports without end", with("ftp", "passive: {ports: 50000-}"),
		`:5:22: listeners[0].passive.ports: "50000-" is not a range of ports from 1 to 65535; write for instance 50000-50100, or any`,
	},
	{
		"ports in two ranges", with("ftp", "passive: {ports: 1-2-3}"),
		`:5:22: listeners[0].passive.ports: "1-2-3" is not a range of ports from 1 to 65535; write for instance 50000-50100, or any`,
	},
	{
		"ports backwards", with("ftp", "passive: {ports: 50100-50000}"),
		`:5:22: listeners[0].passive.ports: "50100-50000" ends before it begins; write 50000-50100`,
	},
	{
		"IPv6 in reply to PASV", with("ftp", `passive: {address: "2001:db8::1"}`),
		`:5:24: listeners[0].passive.address: "2001:db8::1" is not an IPv4 address that clients can connect to; write for instance 203.0.113.7, or remove it`,
	},
	{
		"name in reply to PASV", with("ftp", "passive: {address: ftp.example.org}"),
		`:5:24: listeners[0].passive.address: "ftp.example.org" is not an IPv4 address that clients can connect to; write for instance 203.0.113.7, or remove it`,
	},
	{
		"no address in reply to PASV", with("ftp", "passive: {address: 0.0.0.0}"),
		`:5:24: listeners[0].passive.address: "0.0.0.0" is not an IPv4 address that clients can connect to; write for instance 203.0.113.7, or remove it`,
	},
	{
		"active in quotes", with("ftp", `active: "true"`),
		":5:13: listeners[0].active: want true or false, without quotes",
	},
	{
		"no for false", with("ftp", "active: No"),
		":5:13: listeners[0].active: want false, not No",
	},
	{
		"unknown data_session", with("ftp", "data_session: reuse"),
		`:5:19: listeners[0].data_session: "reuse" is not known; use resume or address`,
	},
	{
		"resumption without tickets", with("ftp", "data_session: resume") + "tls: {session_tickets: {off: true}}\n",
		":5:19: listeners[0].data_session: resume needs session tickets, and tls.session_tickets.off is true; remove that, or use address",
	},
	{
		"resumption without tickets, by default", with("ftp", "active: true") + "tls: {session_tickets: {off: true}}\n",
		":2:5: listeners[0].data_session: resume needs session tickets, and tls.session_tickets.off is true; remove that, or use address",
	},
	{
		"maildir for ftp", "listeners: [{address: \"127.0.0.1:0\", protocol: ftp, backend: \"maildir:m\"}]\n",
		":1:62: listeners[0].backend: a Maildir is for smtp alone; write tcp://host:port, tls://host:port or starttls://host:port",
	},
	{
		"xclient on ftp", options("ftp", "tcp", "xclient: true"),
		":5:16: listeners[0].backend_options.xclient: is for smtp and lmtp, not for ftp; remove it",
	},
	{
		"imap_id on ftp", options("ftp", "tcp", "imap_id: true"),
		":5:16: listeners[0].backend_options.imap_id: is for imap, not for ftp; remove it",
	},
	{
		"no time for a data connection", head + "limits: {data_connect: 0s}\n",
		":2:24: limits.data_connect: 0s is out of range; use 100ms to 1h",
	},
}

func TestRequireTLS(t *testing.T) {
	for _, tt := range []struct {
		protocol, text string
		want           RequireTLS
		printed        string
	}{
		{"imap", "", TLSOptional, "require_tls: false\n"},
		{"imap", "require_tls: false", TLSOptional, "require_tls: false\n"},
		{"imap", "require_tls: true", TLSRequired, "require_tls: true\n"},
		{"ftp", "", TLSForData, "require_tls: data\n"},
		{"ftp", "require_tls: data", TLSForData, "require_tls: data\n"},
		{"ftp", "require_tls: control", TLSForControl, "require_tls: control\n"},
		{"ftp", "require_tls: off", TLSOff, "require_tls: \"off\"\n"},
		{"ftp", "require_tls: 'off'", TLSOff, "require_tls: \"off\"\n"},
		{"ftp", `require_tls: "off"`, TLSOff, "require_tls: \"off\"\n"},
	} {
		c, l := listener(t, tt.protocol, "tcp://127.0.0.1:1", "    "+tt.text+"\n")
		if l.RequireTLS != tt.want || l.RequireTLS.Required() != (tt.want == TLSRequired) {
			t.Errorf("%s, %q: %q", tt.protocol, tt.text, l.RequireTLS)
		}
		if printed, _ := c.YAML(); !strings.Contains(string(printed), tt.printed) {
			t.Errorf("%s, %q: printed\n%s", tt.protocol, tt.text, printed)
		}
	}
}

func TestFTPDefaults(t *testing.T) {
	for _, more := range []string{"", "    passive: {}\n", "    passive:\n      # ports: 50000-50100\n"} {
		_, l := listener(t, "ftp", "starttls://files.internal:21", more)
		if low, high := l.Passive.Range(); low != 0 || high != 0 || l.Passive.Addr().IsValid() {
			t.Errorf("%q: %d to %d, %v", more, low, high, l.Passive.Addr())
		}
		if l.Active || l.DataSession != ResumeControl || l.TLS != StartTLS || l.BackendOptions != defaultBackendOptions() {
			t.Errorf("%q: %+v", more, l)
		}
	}
}

func TestFTPIsAsTheFileSays(t *testing.T) {
	c, l := listener(t, "ftp", "tcp://127.0.0.1:1",
		"    passive: {ports: 50000-50100, address: 203.0.113.7}\n    active: true\n    data_session: address\n"+
			"    require_tls: off\n    backend_options: {proxy_protocol: v2}\ntls: {session_tickets: {off: true}}\n")
	if low, high := l.Passive.Range(); low != 50000 || high != 50100 || l.Passive.Addr() != netip.MustParseAddr("203.0.113.7") {
		t.Errorf("%d to %d, %v", low, high, l.Passive.Addr())
	}
	if !l.Active || l.DataSession != SameAddress || l.BackendOptions.ProxyProtocol != ProxyV2 {
		t.Errorf("%+v", l)
	}
	l.Passive.Ports = ""
	const want = "starttlsd.yaml:5:22: listeners[0].passive.ports: missing; write for instance 50000-50100, or any"
	if err := c.Check(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestPassivePorts(t *testing.T) {
	for text, want := range map[string][2]uint16{
		"any": {0, 0}, "50000": {50000, 50000}, `"50000"`: {50000, 50000}, "1-65535": {1, 65535}, "20-20": {20, 20},
	} {
		_, l := listener(t, "ftp", "tcp://127.0.0.1:1", "    passive: {ports: "+text+", address: 127.0.0.1}\n")
		if low, high := l.Passive.Range(); low != want[0] || high != want[1] {
			t.Errorf("%s: %d to %d", text, low, high)
		}
	}
}

func TestOtherProtocolsPrintNothingOfFTP(t *testing.T) {
	c, _ := listener(t, "imap", "tcp://127.0.0.1:1", "")
	printed, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"passive", "active", "data_session"} {
		if strings.Contains(string(printed), key+":") {
			t.Errorf("printed\n%s", printed)
		}
	}
}
