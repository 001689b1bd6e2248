package main

import (
	"testing"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

// pythonFTP is ftplib, which never resumes: it needs data_session: address.
const pythonFTP = `
import ftplib, io, ssl, sys
port, ca, user, password, how = sys.argv[1:]
ctx = ssl.create_default_context(cafile=ca)

class Resuming(ftplib.FTP_TLS):
    def ntransfercmd(self, cmd, rest=None):
        conn, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        if self._prot_p:
            conn = self.context.wrap_socket(conn, server_hostname=self.host, session=self.sock.session)
        return conn, size

f = (Resuming if how == "resuming" else ftplib.FTP_TLS)(context=ctx, encoding="utf-8")
f.connect("127.0.0.1", int(port), 20)
f.login(user, password)
f.prot_p()
content = bytes(range(256)) * 2000

if how == "refused":
    for attempt in range(2):
        try:
            f.retrbinary("RETR file", lambda b: None); sys.exit("a download")
        except OSError as e: # the alert, unless the reset overtakes it
            print("refused:", repr(e))
        try:
            print(f.getresp()); sys.exit("a good reply")
        except ftplib.error_perm as e:
            assert str(e).startswith("522 "), e
        assert f.pwd() == "/"
    f.quit(); print("all well"); sys.exit()

f.mkd("up/dir"); f.cwd("up/dir")
f.storbinary("STOR größe", io.BytesIO(content))
assert f.size("größe") == len(content)
got = bytearray(); f.retrbinary("RETR größe", got.extend)
assert bytes(got) == content
got = bytearray(); f.retrbinary("RETR größe", got.extend, rest=300000)
assert bytes(got) == content[300000:]
f.storbinary("APPE größe", io.BytesIO(b"more"))
assert f.size("größe") == len(content) + 4
f.storbinary("STOR empty", io.BytesIO(b""))
got = bytearray(); f.retrbinary("RETR empty", got.extend)
assert not got
f.storlines("STOR text", io.BytesIO(b"one\ntwo\n\nfour\n"))
lines = []; f.retrlines("RETR text", lines.append)
assert lines == ["one", "two", "", "four"], lines
f.rename("text", "renamed")
assert sorted(n for n in f.nlst() if n not in (".", "..")) == ["empty", "größe", "renamed"], f.nlst()
lines = []; f.dir(lines.append)
assert any("renamed" in l for l in lines), lines
if "MLST" in f.sendcmd("FEAT"):
    assert dict(f.mlsd(facts=["size"]))["größe"]["size"] == str(len(content) + 4)
try:
    f.retrbinary("RETR missing", lambda b: None); sys.exit("a missing file")
except ftplib.error_perm as e:
    assert str(e).startswith("550"), e
f.set_pasv(False)
if how == "resuming": # where PORT is possible
    got = bytearray(); f.retrbinary("RETR größe", got.extend)
    assert bytes(got) == content + b"more"
else:
    try:
        f.nlst(); sys.exit("active")
    except ftplib.error_perm as e:
        assert str(e).startswith("502"), e
for name in "größe", "empty", "renamed":
    f.delete(name)
f.cwd("/"); f.rmd("up/dir")
f.quit()
print("all well")
`

func TestInteropFTPWithPython(t *testing.T) {
	enginetest.Need(t, "python3")
	for _, start := range realFTPs {
		f := frontFTP(t, start(t))
		f.put("file", noise(4, 10_000))
		run := func(how, port string, wants ...string) {
			t.Helper()
			succeed(t, pythonFTP, []string{"env", "PYTHONIOENCODING=utf-8", "python3", "-", port, f.ca, f.user, f.password, how}, append(wants, "all well")...)
		}
		run("plain", f.address)
		run("resuming", f.explicit) // as the recipe that many have goes
		run("refused", f.explicit, "refused:")
	}
}

// What a session by hand gets to see, and that no file goes in clear.
func TestInteropFTPByHand(t *testing.T) {
	enginetest.Need(t, "openssl", "gnutls-cli")
	for _, start := range realFTPs {
		f := frontFTP(t, start(t))
		login := "USER " + f.user + "\r\nPASS " + f.password + "\r\nPWD\r\n"
		hand := func(port, input string, more []string, wants ...string) {
			t.Helper()
			argv := []string{"openssl", "s_client", "-quiet", "-ign_eof", "-verify_return_error", "-CAfile", f.ca, "-connect", "127.0.0.1:" + port}
			succeed(t, input+"QUIT\r\n", append(argv, more...), append(wants, "221")...)
		}
		starttls := []string{"-starttls", "ftp"}
		hand(f.explicit, login+"FEAT\r\n", starttls, "331", "230", "257 \"/\"", " PBSZ\r\n", " PROT\r\n", " EPSV\r\n", " SIZE\r\n")
		hand(f.explicit, login+"PBSZ 0\r\nPROT C\r\nPASV\r\nLIST\r\nPROT P\r\n", starttls, "534 ", "521 ", "200 Data connections are private")
		hand(f.implicit, login, nil, "257 \"/\"")
		hand(f.implicit, login, []string{"-tls1_2"}, "257 \"/\"")
		succeed(t, login+"QUIT\r\n", []string{"gnutls-cli", "--starttls-proto=ftp", "--x509cafile=" + f.ca,
			"--verify-hostname=" + tlstest.ServerName, "-p", f.explicit, "127.0.0.1"}, "- Status: The certificate is trusted", "257 \"/\"", "221")
	}
}
