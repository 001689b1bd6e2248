package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const head = "listeners: [{address: \"127.0.0.1:0\", protocol: smtp, backend: \"maildir:m\"}]\n"

type brokenFile struct{ name, yaml, want string }

// brokenFiles are configurations and the one line that Load says about each,
// after the name of the file.
var brokenFiles = []brokenFile{
	{
		"empty file", "",
		`: listeners: nothing is served; add for instance - {address: "127.0.0.1:2525", protocol: smtp, backend: "maildir:./maildir"}`,
	},
	{
		"only comments", "# nothing\n",
		`: listeners: nothing is served; add for instance - {address: "127.0.0.1:2525", protocol: smtp, backend: "maildir:./maildir"}`,
	},
	{
		"listeners left out", "hostname: mx.example.org\n",
		`:1:1: listeners: nothing is served; add for instance - {address: "127.0.0.1:2525", protocol: smtp, backend: "maildir:./maildir"}`,
	},
	{
		"listeners empty", "listeners: []\n",
		`:1:12: listeners: nothing is served; add for instance - {address: "127.0.0.1:2525", protocol: smtp, backend: "maildir:./maildir"}`,
	},
	{
		"listeners commented out", "listeners:\n  # - address: 127.0.0.1:25\nhostname: a\n",
		`:1:11: listeners: nothing is served; add for instance - {address: "127.0.0.1:2525", protocol: smtp, backend: "maildir:./maildir"}`,
	},
	{
		"not a mapping", "- a\n- b\n",
		":1:1: a block of keys is wanted here: hostname, tls, listeners, limits, drain, admin, log",
	},
	{
		"a scalar", "hello\n",
		":1:1: a block of keys is wanted here: hostname, tls, listeners, limits, drain, admin, log",
	},
	{
		"tab", "tls:\n\tprofile: modern\n",
		`:2:1: found character '\t' that cannot start any token; indent with spaces, and quote values such as "[::]:25"`,
	},
	{
		"bad indentation", "tls:\n  profile: modern\n strict_sni: true\n",
		`:3:2: value is not allowed in this context; indent with spaces, and quote values such as "[::]:25"`,
	},
	{
		"unclosed quote", `hostname: "mx`,
		`:1:11: could not find end character of double-quoted text; indent with spaces, and quote values such as "[::]:25"`,
	},
	{
		"unclosed brace", "log: {level: info\n",
		`:1:6: could not find flow mapping end token '}'; indent with spaces, and quote values such as "[::]:25"`,
	},
	{
		"bracketed address without quotes", "listeners:\n  - address: [::]:25\n",
		`:2:18: value is not allowed in this context; indent with spaces, and quote values such as "[::]:25"`,
	},
	{
		"duplicate key", "hostname: a\nhostname: b\n",
		`:2:1: key "hostname" is already in line 1; keep one of them`,
	},
	{
		"duplicate key in a listener", "listeners:\n  - {tls: starttls, tls: implicit}\n",
		`:2:21: key "tls" is already in line 2; keep one of them`,
	},
	{
		"two documents", head + "---\nhostname: a\n",
		":2:1: a second YAML document begins; put everything into one",
	},
	{
		"anchor", "hostname: &h mx\n",
		":1:11: hostname: anchors, aliases and tags are not supported; write the value out",
	},
	{
		"tag", "hostname: !!str mx\n",
		":1:11: hostname: anchors, aliases and tags are not supported; write the value out",
	},
	{
		"unknown key", head + "hostnam: mx\n",
		`:2:1: unknown key "hostnam"; known keys: hostname, tls, listeners, limits, drain, admin, log`,
	},
	{
		"unknown key in tls", head + "tls:\n  profil: modern\n",
		`:3:3: unknown key "profil" in tls; known keys: certificates, profile, strict_sni, client_auth, client_ca, session_tickets`,
	},
	{
		"unknown key in a certificate", head + "tls:\n  certificates:\n    - {cert: a, kay: b}\n",
		`:4:17: unknown key "kay" in tls.certificates[0]; known keys: cert, key`,
	},
	{
		"unknown key in a listener", "listeners:\n  - address: 127.0.0.1:25\n    proxyprotocol: true\n",
		`:3:5: unknown key "proxyprotocol" in listeners[0]; known keys: address, protocol, tls, require_tls, proxy_protocol, trusted, backend, backend_options, passive, active, data_session, limits`,
	},
	{
		"unknown key in a listener's limits", "listeners:\n  - limits: {comand: 5m}\n",
		`:2:14: unknown key "comand" in listeners[0].limits; known keys: max_connections, connections_per_client, connection_rate_per_client, handshakes_per_client, handshake, handshake_input, command, line, login, idle, reply, bad_commands, junk_commands, messages, recipients, message_size, data_connect, data_stall, data_rate, output, linger, stress`,
	},
	{
		"process-wide limit in a listener", "listeners:\n  - limits:\n      handshakes_queued: 5\n",
		":3:7: handshakes_queued holds for the whole process; move it from listeners[0].limits to the global limits",
	},
	{
		"block where a list is wanted", "listeners:\n  address: 127.0.0.1:25\n",
		`:2:3: listeners: a list is wanted here: begin each item with "- "`,
	},
	{
		"text where a block is wanted", "log: info\n",
		":1:6: log: a block of keys is wanted here: level, format, rate, burst",
	},
	{
		"list where a block is wanted", "tls: [modern]\n",
		":1:6: tls: a block of keys is wanted here: certificates, profile, strict_sni, client_auth, client_ca, session_tickets",
	},
	{
		"list where text is wanted", "hostname: [a, b]\n",
		":1:11: hostname: want a text; quote what YAML takes for a number or a list",
	},
	{
		"number where text is wanted", "hostname: 12\n",
		":1:11: hostname: want a text; quote what YAML takes for a number or a list",
	},
	{
		"no value", "hostname:\n",
		":1:11: hostname: no value; give one or remove the line",
	},
	{
		"no value in a list", "listeners:\n  -\n",
		`:2:5: listeners[0].address: missing; write IP:port, or ":port" for all addresses`,
	},
	{
		"host name with a space", head + "hostname: my host\n",
		`:2:11: hostname: "my host" is not a host name; use letters, digits, hyphens and dots, and the xn-- form of others`,
	},
	{
		"host name with an empty label", head + "hostname: a..b\n",
		`:2:11: hostname: "a..b" is not a host name; use letters, digits, hyphens and dots, and the xn-- form of others`,
	},
	{
		"host name that is an address", head + "hostname: 192.0.2.1\n",
		`:2:11: hostname: "192.0.2.1" is not a host name; use letters, digits, hyphens and dots, and the xn-- form of others`,
	},
	{
		"host name not ASCII", head + "hostname: bücher.example\n",
		`:2:11: hostname: "bücher.example" is not a host name; use letters, digits, hyphens and dots, and the xn-- form of others`,
	},
	{
		"control character", head + "hostname: \"a\\nb\"\n",
		`:2:11: hostname: "a\nb" holds a control character or is not UTF-8`,
	},
	{
		"not UTF-8", head + "tls: {client_ca: \"cl\xe9.pem\"}\n",
		`:2:18: tls.client_ca: "cl�.pem" holds a control character or is not UTF-8`,
	},
	{
		"unknown profile", head + "tls: {profile: old}\n",
		`:2:16: tls.profile: "old" is not known; use modern, intermediate or legacy`,
	},
	{
		"unknown client_auth", head + "tls:\n  client_auth: optional\n",
		`:3:16: tls.client_auth: "optional" is not known; use none, request, verify or require`,
	},
	{
		"verify without client_ca", head + "tls:\n  client_auth: verify\n",
		":3:16: tls.client_auth: verify needs client_ca, the PEM file of the authorities to trust",
	},
	{
		"require without client_ca", head + "tls:\n  client_auth: require\n",
		":3:16: tls.client_auth: require needs client_ca, the PEM file of the authorities to trust",
	},
	{
		"yes for true", head + "tls: {strict_sni: yes}\n",
		":2:19: tls.strict_sni: want true, not yes",
	},
	{
		"certificate without key", head + "tls:\n  certificates:\n    - cert: a.pem\n",
		":4:7: tls.certificates[0]: both cert and key have to name a PEM file",
	},
	{
		"certificates as text", head + "tls:\n  certificates: a.pem\n",
		`:3:17: tls.certificates: a list is wanted here: begin each item with "- "`,
	},
	{
		"address missing", "listeners:\n  - protocol: smtp\n    backend: maildir:m\n",
		`:2:5: listeners[0].address: missing; write IP:port, or ":port" for all addresses`,
	},
	{
		"address without port", "listeners:\n  - {address: 127.0.0.1, protocol: smtp, backend: \"maildir:m\"}\n",
		`:2:15: listeners[0].address: "127.0.0.1" is not IP:port; write for instance 127.0.0.1:2525, "[::1]:2525" or fd:NAME`,
	},
	{
		"address is a port", "listeners:\n  - {address: 25, protocol: smtp, backend: \"maildir:m\"}\n",
		":2:15: listeners[0].address: want a text; quote what YAML takes for a number or a list",
	},
	{
		"port name", "listeners:\n  - {address: \"127.0.0.1:smtp\", protocol: smtp, backend: \"maildir:m\"}\n",
		`:2:15: listeners[0].address: port "smtp" is not a number from 0 to 65535`,
	},
	{
		"port too large", "listeners:\n  - {address: \"127.0.0.1:65536\", protocol: smtp, backend: \"maildir:m\"}\n",
		`:2:15: listeners[0].address: port "65536" is not a number from 0 to 65535`,
	},
	{
		"host by name", "listeners:\n  - {address: \"localhost:25\", protocol: smtp, backend: \"maildir:m\"}\n",
		`:2:15: listeners[0].address: "localhost" is not an IP address; write one, without zone, or nothing for all addresses`,
	},
	{
		"zone", "listeners:\n  - {address: \"[fe80::1%eth0]:25\", protocol: smtp, backend: \"maildir:m\"}\n",
		`:2:15: listeners[0].address: "fe80::1%eth0" is not an IP address; write one, without zone, or nothing for all addresses`,
	},
	{
		"inherited socket without a name", "listeners:\n  - {address: \"fd:\", protocol: smtp, backend: \"maildir:m\"}\n",
		`:2:15: listeners[0].address: port "" is not a number from 0 to 65535`,
	},
	{
		"admin without port", head + "admin: {address: 127.0.0.1}\n",
		`:2:18: admin.address: "127.0.0.1" is not IP:port; write for instance 127.0.0.1:2525, "[::1]:2525" or fd:NAME`,
	},
	{
		"admin where mail is", "listeners: [{address: \"127.0.0.1:2525\", protocol: smtp, backend: \"maildir:m\"}]\nadmin: {address: \"127.0.0.1:2525\"}\n",
		`:2:18: admin.address: 127.0.0.1:2525 is taken by listeners[0]`,
	},
	{
		"ticket keys nowhere", head + "tls: {session_tickets: {keys: memcached://127.0.0.1}}\n",
		`:2:31: tls.session_tickets.keys: not known; use auto, file:PATH, redis://HOST:PORT/DB or rediss://HOST:PORT/DB`,
	},
	{
		"ticket keys in a file without a name", head + "tls: {session_tickets: {keys: \"file:\"}}\n",
		`:2:31: tls.session_tickets.keys: the path is missing; write file:PATH`,
	},
	{
		"ticket keys without host", head + "tls: {session_tickets: {keys: redis:///0}}\n",
		`:2:31: tls.session_tickets.keys: the host is missing; write redis://HOST:PORT/DB`,
	},
	{
		"ticket keys for ever", head + "tls: {session_tickets: {rotate: 200h}}\n",
		`:2:33: tls.session_tickets.rotate: 200h is out of range; use 1s to 168h`,
	},
	{
		"log rate", head + "log: {rate: 0}\n",
		`:2:13: log.rate: 0 is out of range; use 1 to 1048576`,
	},
	{
		"stress without end", head + "limits: {stress: 2h}\n",
		`:2:18: limits.stress: 2h is out of range; use 100ms to 1h`,
	},
	{
		"same address twice", "listeners:\n  - {address: \":25\", protocol: smtp, backend: \"maildir:m\"}\n  - {address: \"[::]:25\", protocol: smtp, backend: \"maildir:m\"}\n",
		":3:15: listeners[1].address: [::]:25 is taken by listeners[0]",
	},
	{
		"protocol missing", "listeners:\n  - address: 127.0.0.1:25\n    backend: maildir:m\n",
		":2:5: listeners[0].protocol: missing; use smtp, lmtp, imap, pop3, sieve, nntp or ftp",
	},
	{
		"unknown protocol", "listeners:\n  - {address: \"127.0.0.1:25\", protocol: imaps, backend: \"maildir:m\"}\n",
		`:2:41: listeners[0].protocol: "imaps" is not known; use smtp, lmtp, imap, pop3, sieve, nntp or ftp`,
	},
	{
		"unknown tls mode", "listeners:\n  - {address: \"127.0.0.1:25\", protocol: smtp, backend: \"maildir:m\", tls: ssl}\n",
		`:2:74: listeners[0].tls: "ssl" is not known; use starttls or implicit`,
	},
	{
		"no time to log in", head + "limits: {login: 0s}\n",
		":2:17: limits.login: 0s is out of range; use 100ms to 1h",
	},
	{
		"no time to reply", head + "limits: {reply: 0s}\n",
		":2:17: limits.reply: 0s is out of range; use 100ms to 24h",
	},
	{
		"idle for too long", head + "limits: {idle: 25h}\n",
		":2:16: limits.idle: 25h is out of range; use 100ms to 24h",
	},
	{
		"duration without unit", head + "limits:\n  handshake: 10\n",
		":3:14: limits.handshake: want a duration with its unit, for instance 10s or 1m30s",
	},
	{
		"duration without unit, in quotes", head + "limits:\n  handshake: \"10\"\n",
		`:3:14: limits.handshake: "10" is not a duration; write for instance 10s or 1m30s`,
	},
	{
		"duration is no duration", head + "drain: soon\n",
		`:2:8: drain: "soon" is not a duration; write for instance 10s or 1m30s`,
	},
	{
		"duration negative", head + "drain: -1s\n",
		":2:8: drain: -1s is out of range; use 0s to 24h",
	},
	{
		"duration too short", head + "limits: {command: 1ms}\n",
		":2:19: limits.command: 1ms is out of range; use 100ms to 1h",
	},
	{
		"duration too long", head + "limits: {handshake: 24h}\n",
		":2:21: limits.handshake: 24h is out of range; use 100ms to 10m",
	},
	{
		"size is no size", head + "limits: {message_size: 25 megs}\n",
		`:2:24: limits.message_size: "25 megs" is not a size; write bytes, or a whole number with KiB, MiB, GiB, kB, MB or GB`,
	},
	{
		"size with a fraction", head + "limits: {message_size: 1.5}\n",
		":2:24: limits.message_size: want a whole number, without quotes",
	},
	{
		"size too large to be a number", head + "limits: {message_size: 99999999999GiB}\n",
		`:2:24: limits.message_size: "99999999999GiB" is too large`,
	},
	{
		"size too small", head + "limits: {line: 511}\n",
		":2:16: limits.line: 511 is out of range; use 512 to 16KiB",
	},
	{
		"size negative", head + "limits: {output: -1}\n",
		":2:18: limits.output: -1 is out of range; use 4KiB to 1MiB",
	},
	{
		"count in quotes", head + "limits: {messages: \"5\"}\n",
		":2:20: limits.messages: want a whole number, without quotes",
	},
	{
		"count too large to be a number", head + "limits: {messages: 18446744073709551615}\n",
		":2:20: limits.messages: 18446744073709551615 is too large",
	},
	{
		"count negative", head + "limits: {max_connections: -1}\n",
		":2:27: limits.max_connections: -1 is out of range; use 0 to 16777216",
	},
	{
		"count zero", head + "limits: {connections_per_client: 0}\n",
		":2:34: limits.connections_per_client: 0 is out of range; use 1 to 16777216",
	},
	{
		"too few recipients", "listeners:\n  - {address: \"127.0.0.1:25\", protocol: smtp, backend: \"maildir:m\", limits: {recipients: 10}}\n",
		":2:90: listeners[0].limits.recipients: 10 is out of range; use 100 to 1048576",
	},
	{
		"handshake input too small", head + "limits: {handshake_input: 1KiB}\n",
		":2:27: limits.handshake_input: 1KiB is out of range; use 4KiB to 1MiB",
	},
	{
		"log level", head + "log: {level: verbose}\n",
		`:2:14: log.level: "verbose" is not known; use debug, info, warn or error`,
	},
	{
		"log format", head + "log:\n  format: xml\n",
		`:3:11: log.format: "xml" is not known; use text or json`,
	},
}

func TestLoadSaysOneLineAboutABrokenFile(t *testing.T) {
	for _, tt := range slices.Concat(brokenFiles, brokenBackends, brokenFTP) {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "starttlsd.yaml")
			if err := os.WriteFile(file, []byte(tt.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := Load(file)
			if err == nil {
				t.Fatalf("loaded: %+v", c)
			}
			got, ok := strings.CutPrefix(err.Error(), file)
			if !ok || got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}
