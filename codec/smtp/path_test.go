package smtp

import (
	"strings"
	"testing"
)

func TestPathsAreParsedByTheGrammar(t *testing.T) {
	label := strings.Repeat("d", 63)
	domain := label + "." + label + "." + label // 191 octets
	for _, test := range []struct{ in, addr, rest string }{
		{"<>", "", ""},
		{"<> SIZE=1", "", " SIZE=1"},
		{"<a@b>", "a@b", ""},
		{"<a.b+c=d@e-f.example> X", "a.b+c=d@e-f.example", " X"},
		{"<!#$%&'*+-/=?^_`{|}~@b.example>", "!#$%&'*+-/=?^_`{|}~@b.example", ""},
		{`<"a b"@c.example>`, `"a b"@c.example`, ""},
		{`<"a\"b\\>"@c.example>`, `"a\"b\\>"@c.example`, ""},
		{`<""@c.example>`, `""@c.example`, ""},
		{"<a@[192.0.2.1]>", "a@[192.0.2.1]", ""},
		{"<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", ""},
		{"<a@[ipv6:::ffff:192.0.2.1]>", "a@[ipv6:::ffff:192.0.2.1]", ""},
		{"<@r.example:a@b.example>", "a@b.example", ""},
		{"<@r.example,@s.example:a@b.example>", "a@b.example", ""},
		{"<a@my_host>", "a@my_host", ""},
		{"<jürgen@exämple.org>", "jürgen@exämple.org", ""},
		{`<"jürgen x"@b.example>`, `"jürgen x"@b.example`, ""},
		{"<" + strings.Repeat("l", 64) + "@b>", strings.Repeat("l", 64) + "@b", ""},
		{"<" + strings.Repeat("l", 62) + "@" + domain + ">", strings.Repeat("l", 62) + "@" + domain, ""},
	} {
		addr, rest, ok := parsePath([]byte(test.in))
		if string(addr) != test.addr || string(rest) != test.rest || !ok {
			t.Errorf("%q: %q, %q, %v", test.in, addr, rest, ok)
		}
	}
	for _, in := range []string{
		"", "<", ">", "a@b", "<a>", "<a@>", "<@b>", "<a@b", "<a@b>x", "<a@@b>", "< a@b>",
		"<.a@b>", "<a.@b>", "<a..b@c>", "<a b@c>", "<a@b..c>", "<a@.b>", "<a@b.>", "<a@-b>", "<a@b->",
		"<a@b,c>", "<a@[1.2.3]>", "<a@[1.2.3.4>", "<a@[1.2.3.4]x>", "<a@[IPv6:1.2.3.4]>", "<a@[2001:db8::1]>",
		"<a@[IPv6:fe80::1%eth0]>", "<a@[X-tag:x]>", "<a@[]>", `<"a@b>`, `<"a"b@c>`, `<"a\`, "<\"a\tb\"@c>",
		"<@r.example>", "<@r.example:>", "<@r.example,a@b>", "<@:a@b>", "<a@b\xff>", "<a\u0085@b>", "<a\x7f@b>",
		"<Postmaster>",
		"<" + strings.Repeat("l", 65) + "@b>",
		"<a@" + strings.Repeat("d", 64) + ">",
		"<" + strings.Repeat("l", 63) + "@" + domain + ">",
	} {
		if addr, rest, ok := parsePath([]byte(in)); ok {
			t.Errorf("%q is a path: %q, %q", in, addr, rest)
		}
	}
}
