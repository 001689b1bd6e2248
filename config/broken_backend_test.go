package config

import "fmt"

// smtpTo is a listener with that backend.
func smtpTo(backend string) string {
	return fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\", protocol: smtp, backend: \"%s\"}]\n", backend)
}

// options is a listener with a backend that has one option, in line 5.
func options(protocol, scheme, option string) string {
	return fmt.Sprintf("listeners:\n  - {address: \"127.0.0.1:0\", protocol: %s, backend: \"%s://127.0.0.1:1\",\n"+
		"    # the option\n    backend_options: {\n      %s}}\n", protocol, scheme, option)
}

// behindProxies is a listener that trusts somebody, in line 5.
func behindProxies(header, trusted string) string {
	return fmt.Sprintf("listeners:\n  - address: 127.0.0.1:25\n    protocol: smtp\n    proxy_protocol: %s\n"+
		"    trusted: [%s]\n    backend: maildir:m\n", header, trusted)
}

// brokenBackends are mistakes about what is behind a listener, or in front of it.
var brokenBackends = []brokenFile{
	{
		"backend missing", "listeners:\n  - {address: \"127.0.0.1:25\", protocol: smtp}\n",
		":2:5: listeners[0].backend: missing; write tcp://host:port, tls://host:port or starttls://host:port, or maildir:PATH for smtp",
	},
	{
		"unknown backend", smtpTo("Maildir:m"),
		`:1:63: listeners[0].backend: "Maildir:m" is not known; write tcp://host:port, tls://host:port or starttls://host:port, or maildir:PATH for smtp`,
	},
	{
		"unknown scheme", smtpTo("smtp://127.0.0.1:26"),
		`:1:63: listeners[0].backend: "smtp://127.0.0.1:26" is not known; write tcp://host:port, tls://host:port or starttls://host:port`,
	},
	{
		"backend without port", smtpTo("tls://mail.internal"),
		`:1:63: listeners[0].backend: "tls://mail.internal" is not tls://host:port; write for instance tls://mail.internal:143 or "tls://[::1]:143"`,
	},
	{
		"backend with an IPv6 address without brackets", smtpTo("tls://::1:143"),
		`:1:63: listeners[0].backend: "tls://::1:143" is not tls://host:port; write for instance tls://mail.internal:143 or "tls://[::1]:143"`,
	},
	{
		"backend with port 0", smtpTo("tcp://127.0.0.1:0"),
		`:1:63: listeners[0].backend: port "0" is not a number from 1 to 65535`,
	},
	{
		"backend with the name of a port", smtpTo("tcp://127.0.0.1:smtp"),
		`:1:63: listeners[0].backend: port "smtp" is not a number from 1 to 65535`,
	},
	{
		"backend without host", smtpTo("tcp://:26"),
		`:1:63: listeners[0].backend: "" is neither a host name nor an IP address`,
	},
	{
		"backend with a path", smtpTo("tcp://mail:26/"),
		`:1:63: listeners[0].backend: port "26/" is not a number from 1 to 65535`,
	},
	{
		"maildir without path", smtpTo("maildir:"),
		":1:63: listeners[0].backend: the path is missing; write maildir:PATH",
	},
	{
		"maildir for imap", "listeners: [{address: \"127.0.0.1:0\", protocol: imap, backend: \"maildir:m\"}]\n",
		":1:63: listeners[0].backend: a Maildir is for smtp alone; write tcp://host:port, tls://host:port or starttls://host:port",
	},
	{
		"options for a maildir", "listeners:\n  - address: 127.0.0.1:25\n    protocol: smtp\n    backend: maildir:m\n    backend_options: {timeout: 5s}\n",
		":5:22: listeners[0].backend_options: a Maildir has none; remove them",
	},
	{
		"unknown option", options("imap", "tls", "insecure_skip_verify: true"),
		`:5:7: unknown key "insecure_skip_verify" in listeners[0].backend_options; known keys: proxy_protocol, xclient, imap_id, ca, server_name, cert, key, timeout, concurrency`,
	},
	{
		"unknown version of the PROXY header", options("imap", "tcp", "proxy_protocol: v3"),
		`:5:23: listeners[0].backend_options.proxy_protocol: "v3" is not known; use none, v1 or v2`,
	},
	{
		"truth in place of a version", options("imap", "tcp", "proxy_protocol: true"),
		":5:23: listeners[0].backend_options.proxy_protocol: want a text; quote what YAML takes for a number or a list",
	},
	{
		"xclient on imap", options("imap", "tcp", "xclient: true"),
		":5:16: listeners[0].backend_options.xclient: is for smtp and lmtp, not for imap; remove it",
	},
	{
		"imap_id on pop3", options("pop3", "tcp", "imap_id: true"),
		":5:16: listeners[0].backend_options.imap_id: is for imap, not for pop3; remove it",
	},
	{
		"client certificate without key", options("imap", "tls", "cert: a.pem"),
		":5:13: listeners[0].backend_options.cert: needs key, the PEM file of its key",
	},
	{
		"key without client certificate", options("imap", "tls", "key: a.pem"),
		":5:12: listeners[0].backend_options.key: needs cert, the PEM file of its certificate",
	},
	{
		"authority of a backend without TLS", options("imap", "tcp", "ca: a.pem"),
		":5:11: listeners[0].backend_options.ca: is for tls:// and starttls://, and the backend is tcp://; remove one of them",
	},
	{
		"name of a backend without TLS", options("imap", "tcp", "server_name: a.example"),
		":5:20: listeners[0].backend_options.server_name: is for tls:// and starttls://, and the backend is tcp://; remove one of them",
	},
	{
		"name that no certificate is for", options("imap", "tls", "server_name: a_b c"),
		`:5:20: listeners[0].backend_options.server_name: "a_b c" is not a host name; use letters, digits, hyphens and dots, and the xn-- form of others`,
	},
	{
		"no time to dial", options("imap", "tcp", "timeout: 0s"),
		":5:16: listeners[0].backend_options.timeout: 0s is out of range; use 100ms to 10m",
	},
	{
		"no dials", options("imap", "tcp", "concurrency: 0"),
		":5:20: listeners[0].backend_options.concurrency: 0 is out of range; use 1 to 65536",
	},
	{
		"PROXY header from anybody", behindProxies("true", ""),
		":4:21: listeners[0].proxy_protocol: needs trusted, the addresses of the proxies; anybody could say to be anyone otherwise",
	},
	{
		"trusted without PROXY header", behindProxies("false", "10.0.0.0/8"),
		":5:14: listeners[0].trusted: is of no use without proxy_protocol: true; add that, or remove it",
	},
	{
		"trusted by name", behindProxies("true", "10.0.0.1, localhost"),
		`:5:25: listeners[0].trusted[1]: "localhost" is not a network; write for instance 10.0.0.0/8, or 10.0.0.1 for one address`,
	},
	{
		"trusted with a zone", behindProxies("true", "fe80::1%eth0"),
		`:5:15: listeners[0].trusted[0]: "fe80::1%eth0" is not a network; write for instance 10.0.0.0/8, or 10.0.0.1 for one address`,
	},
	{
		"trusted network with a host", behindProxies("true", "10.0.0.1/8"),
		`:5:15: listeners[0].trusted[0]: "10.0.0.1/8" has bits behind its length; write 10.0.0.0/8, or the address alone`,
	},
	{
		"trusted network in two ways", behindProxies("true", "'::ffff:10.0.0.1'"),
		`:5:15: listeners[0].trusted[0]: "::ffff:10.0.0.1" is IPv4 within IPv6; write the IPv4 network`,
	},
	{
		"trusted is no list", "listeners:\n  - address: 127.0.0.1:25\n    trusted: 10.0.0.1\n",
		`:3:14: listeners[0].trusted: a list is wanted here: begin each item with "- "`,
	},
}
