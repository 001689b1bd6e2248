package main

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

// vsftpdConfig is a server in plaintext, as it may stand behind starttlsd. The names in
// capitals are filled in. Clients are anonymous, so that no account is needed.
const vsftpdConfig = `
background=NO
listen=YES
listen_address=127.0.0.1
listen_port=PORT
anonymous_enable=YES
local_enable=NO
ftp_username=daemon
anon_root=DIR/files
secure_chroot_dir=DIR/empty
seccomp_sandbox=NO
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_umask=022
anon_world_readable_only=NO
ascii_upload_enable=YES
ascii_download_enable=YES
max_clients=0
max_per_ip=0
vsftpd_log_file=DIR/log
xferlog_enable=YES
xferlog_std_format=NO
log_ftp_protocol=YES
`

// realFTP is a real one. Its clients see a directory of root's, with one called up
// in it that they may write to.
type realFTP struct {
	t              *testing.T
	name           string
	dir            string
	port           string
	user, password string
	extra          []string // of its configuration
}

// path is where one of its files is.
func (s *realFTP) path(name string) string { return filepath.Join(s.dir, "files", name) }

// log is what the server has written so far.
func (s *realFTP) log() string {
	log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(log)
}

// put makes a file that clients can download.
func (s *realFTP) put(name string, content []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), content, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// has compares a file of the server's.
func (s *realFTP) has(name string, want []byte) {
	s.t.Helper()
	got, err := os.ReadFile(s.path(name))
	if err != nil || !bytes.Equal(got, want) {
		s.t.Errorf("%s has %d bytes of %s, want %d (%v)", s.name, len(got), name, len(want), err)
	}
}

// begins waits until the server has begun to store a file.
func (s *realFTP) begins(name string) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(s.path(name)); err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s has not begun to store %s", s.name, name)
		}
	}
}

func newRealFTP(t *testing.T, name string) *realFTP {
	t.Helper()
	enginetest.NeedRoot(t)
	s := &realFTP{t: t, name: name, dir: enginetest.OpenDir(t), port: enginetest.FreePort(t)}
	for _, dir := range []string{s.path("up"), filepath.Join(s.dir, "empty")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(s.path("up"), 0o777); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log := s.log()
			t.Logf("%s's log:\n%s", name, log[max(0, len(log)-8<<10):])
		}
	})
	return s
}

// startVsftpd starts one, with more lines in its configuration.
func startVsftpd(t *testing.T, more ...string) *realFTP {
	t.Helper()
	enginetest.Need(t, "vsftpd")
	s := newRealFTP(t, "vsftpd")
	s.user, s.password, s.extra = "anonymous", "interop@example.org", more
	config := vsftpdConfig + strings.Join(append(more, ""), "\n")
	enginetest.Daemon(t, "vsftpd", enginetest.Fill(t, s.dir, "vsftpd.conf", config, "PORT", s.port, "DIR", s.dir))
	enginetest.Listens(t, s.port)
	return s
}

// unpacked is where .ci/run has what is not installed: Debian's FTP servers exclude
// each other as packages.
const unpacked = "/opt/starttlsd-interop"

// pureHash is of the password "secret". pure-pw would make one that takes seconds.
const pureHash = "$1$interop$xzlohXVvdOROU.alU3G23/"

// startPureFTPd starts one with a virtual user.
func startPureFTPd(t *testing.T, _ ...string) *realFTP {
	t.Helper()
	t.Setenv("PATH", os.Getenv("PATH")+":"+unpacked+"/usr/sbin:"+unpacked+"/usr/bin")
	enginetest.Need(t, "pure-ftpd", "pure-pw")
	s := newRealFTP(t, "Pure-FTPd")
	s.user, s.password = "alice", "secret"
	users := enginetest.Fill(t, s.dir, "users", "USER:"+pureHash+":1:1::FILES/./::::::::::::\n", "USER", s.user, "FILES", s.path(""))
	succeed(t, "", []string{"pure-pw", "mkdb", users + ".db", "-f", users})
	enginetest.Daemon(t, "pure-ftpd", "-S", "127.0.0.1,"+s.port, "-l", "puredb:"+users+".db", "-E", "-H", "-4", "-u", "1", "-c", "200", "-C", "200",
		"-g", filepath.Join(s.dir, "pid"), "-O", "clf:"+filepath.Join(s.dir, "log"))
	enginetest.Listens(t, s.port)
	return s
}

// realFTPs are those whose clients have to see the same.
var realFTPs = []func(*testing.T, ...string) *realFTP{startVsftpd, startPureFTPd}

// ftpFrontConfig is the listeners in front of it.
const ftpFrontConfig = `
hostname: ftp.example.org
tls: {certificates: [{cert: "CERT", key: "KEY"}]}
listeners:
  - {address: "127.0.0.1:0", protocol: ftp, backend: "BACKEND", active: true OPTIONS}
  - {address: "127.0.0.1:0", protocol: ftp, tls: implicit, backend: "BACKEND", active: true OPTIONS}
  - {address: "127.0.0.1:0", protocol: ftp, backend: "BACKEND", passive: {ports: 50000-50100}, data_session: address OPTIONS}
  - {address: "127.0.0.1:0", protocol: ftp, backend: "BACKEND", require_tls: "off", active: true OPTIONS}
`

// ftpFront is starttlsd in front of a server.
type ftpFront struct {
	*enginetest.Process
	*realFTP
	ca string

	explicit, implicit, address, clear string // our ports; with address data connections need not resume
}

// frontFTP puts starttlsd in front of s, in plaintext.
func frontFTP(t *testing.T, s *realFTP) *ftpFront {
	t.Helper()
	return frontFTPWith(t, s, "tcp://127.0.0.1:"+s.port, "")
}

func frontFTPWith(t *testing.T, s *realFTP, backend, options string) *ftpFront {
	t.Helper()
	f := &ftpFront{realFTP: s, ca: roots(t)}
	cert, key := tlstest.WritePEM(t.TempDir(), tlstest.Certificate(tlstest.ServerName, "localhost", "127.0.0.1"))
	pairs := strings.NewReplacer("BACKEND", backend, " OPTIONS", options, "CERT", cert, "KEY", key, "CA", f.ca)
	f.Process = enginetest.Start(t, enginetest.Config{YAML: pairs.Replace(pairs.Replace(ftpFrontConfig))})
	for i, to := range []*string{&f.explicit, &f.implicit, &f.address, &f.clear} {
		*to = port(t, f.Addrs[i])
	}
	return f
}

// noise is content that no mistake leaves as it is, the same for a seed.
func noise(seed uint64, size int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// filesIn are all of a directory, with their contents.
func filesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		found[name] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
