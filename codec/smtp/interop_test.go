package smtp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

// The TestInterop tests run the starttlsd command and talk to it with programs
// that others wrote. Without such a program they are skipped. With
// STARTTLSD_INTEROP=1 they fail instead, and the long ones run too.

// full reports whether every program has to be there and every test has to run.
func full() bool { return os.Getenv("STARTTLSD_INTEROP") == "1" }

// need skips the test, or fails it, unless all programs are installed.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			unavailable(t, program+" is not installed")
		}
	}
}

// needSwaks: without this module it has no TLS.
func needSwaks(t *testing.T) {
	t.Helper()
	need(t, "swaks", "perl")
	if exec.Command("perl", "-MNet::SSLeay", "-e", "1").Run() != nil {
		unavailable(t, "swaks has no Net::SSLeay")
	}
}

func unavailable(t *testing.T, why string) {
	t.Helper()
	if full() {
		t.Fatal(why)
	}
	t.Skip(why)
}

// patience is how long anything may take that normally takes a moment.
const patience = 60 * time.Second

// The server has a certificate for each of these names. The first is also for
// 127.0.0.1, and is the one that a client gets who asks for neither.
const (
	mailName  = tlstest.ServerName
	otherName = "other.example.net"
)

// server is a starttlsd with one listener of each kind and one Maildir.
type server struct {
	*enginetest.Process
	t        *testing.T
	ca       string // PEM file with the authority of its certificates
	starttls string // port of the listener that requires STARTTLS
	implicit string // port of the listener with implicit TLS
	drop     string // the Maildir
}

// serve starts a server. The settings are lines of its tls: block.
func serve(t *testing.T, settings ...string) *server {
	t.Helper()
	s := &server{t: t, ca: filepath.Join(t.TempDir(), "ca.pem")}
	tlstest.WriteRoots(s.ca)
	yaml := []string{"hostname: mx.example.org", "tls:", fmt.Sprintf("  client_ca: %q", s.ca)}
	for _, setting := range settings {
		yaml = append(yaml, "  "+setting)
	}
	yaml = append(yaml, "  certificates:")
	for _, names := range [][]string{{mailName, "127.0.0.1"}, {otherName}} {
		cert, key := tlstest.WritePEM(t.TempDir(), tlstest.Certificate(names...))
		yaml = append(yaml, fmt.Sprintf("  - {cert: %q, key: %q}", cert, key))
	}
	yaml = append(yaml, "listeners:",
		`- {address: "127.0.0.1:0", protocol: smtp, tls: starttls, require_tls: true, backend: "maildir:drop"}`,
		`- {address: "127.0.0.1:0", protocol: smtp, tls: implicit, backend: "maildir:drop"}`)
	s.Process = enginetest.Start(t, enginetest.Config{YAML: strings.Join(yaml, "\n") + "\n"})
	s.starttls, s.implicit = port(t, s.Addrs[0]), port(t, s.Addrs[1])
	s.drop = filepath.Join(s.Dir, "drop")
	return s
}

func port(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// received checks that the Maildir holds n messages, each of them want, that came
// by TLS. It removes them.
func (s *server) received(t *testing.T, n int, want []byte) {
	t.Helper()
	messages := enginetest.Maildir(t, s.drop)
	if len(messages) != n {
		t.Fatalf("%d messages in the Maildir, want %d", len(messages), n)
	}
	for name, message := range messages {
		if err := os.Remove(filepath.Join(s.drop, "new", name)); err != nil {
			t.Fatal(err)
		}
		content := enginetest.Content(message)
		if trace := message[:len(message)-len(content)]; !bytes.Contains(trace, []byte("SMTPS id ")) {
			t.Errorf("the trace header does not say that it came by TLS:\n%s", trace)
		}
		same(t, content, want)
	}
}

// count is the number of messages in the Maildir.
func (s *server) count() int {
	names, err := os.ReadDir(filepath.Join(s.drop, "new"))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(names)
}

// storing reports whether the Maildir holds a part of a message, up to and with text.
func (s *server) storing(text string) bool {
	names, _ := filepath.Glob(filepath.Join(s.drop, "tmp", "*"))
	return slices.ContainsFunc(names, func(name string) bool {
		message, err := os.ReadFile(name)
		return err == nil && bytes.HasSuffix(message, []byte(text))
	})
}

// same compares byte by byte.
func same(t *testing.T, got, want []byte) {
	t.Helper()
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	if at < max(len(got), len(want)) {
		excerpt := func(b []byte) []byte { return b[max(at-40, 0):min(at+40, len(b))] }
		t.Fatalf("%d bytes arrived, %d were sent, and they differ at %d: got …%q, want …%q",
			len(got), len(want), at, excerpt(got), excerpt(want))
	}
}

// logged waits until the server has logged what.
func (s *server) logged(t *testing.T, what string) {
	t.Helper()
	eventually(t, "the server logs "+what, func() bool { return strings.Contains(s.Log(), what) })
}

// eventually waits until cond, which other processes make true, is true.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not seen: " + what)
		}
	}
}

// command is a program that is killed when it takes far too long, or when the
// test is over.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// exited reports whether a program has come to its own end, with any status.
func exited(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return err == nil || ok && exit.Exited()
}

// run runs a program to its end. It returns all that it printed, and whether it
// ended with status 0.
func run(t *testing.T, stdin []byte, name string, args ...string) (output string, ok bool) {
	t.Helper()
	cmd := command(t, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if !exited(err) {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out), err == nil
}

// succeed runs a program that has to end with status 0.
func succeed(t *testing.T, stdin []byte, name string, args ...string) (output string) {
	t.Helper()
	output, ok := run(t, stdin, name, args...)
	if !ok {
		t.Fatalf("%s %s failed:\n%s", name, strings.Join(args, " "), output)
	}
	return output
}

// write puts b into a new file and returns its name.
func write(t *testing.T, b []byte) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

const header = "From: Alice <alice@example.org>\r\n" +
	"To: Bob <bob@example.org>\r\n" +
	"Subject: interop\r\n" +
	"Date: Mon, 23 Nov 2026 12:00:00 +0000\r\n" +
	"Message-ID: <interop@example.org>\r\n" +
	"MIME-Version: 1.0\r\n" +
	"Content-Type: text/plain; charset=iso-8859-1\r\n" +
	"Content-Transfer-Encoding: 8bit\r\n\r\n"

// tricky is a message with the lines that are easily got wrong: dots in front,
// dots alone, all octets that a line may have, and the longest line of RFC 5321.
var tricky = slices.Concat([]byte(header), []byte(".\r\n..\r\n...\r\n.dot\r\n\r\n \r\n."), allOctets(),
	[]byte("\r\n"), bytes.Repeat([]byte("."), 998), []byte("\r\n\r\n.\r\nend\r\n"))

// allOctets is each octet but NUL, LF and CR.
func allOctets() []byte {
	var all []byte
	for c := 1; c < 256; c++ {
		if c != '\n' && c != '\r' {
			all = append(all, byte(c))
		}
	}
	return all
}

// attachment is a message of size octets or some more in lines of up to
// maxLine, with all octets and many a dot in front. It is the same every time.
func attachment(size, maxLine int) []byte {
	octets := allOctets()
	random := rand.New(rand.NewPCG(1, 2))
	message := append(make([]byte, 0, size+maxLine+1024), header...)
	for len(message) < size {
		line := random.IntN(maxLine)
		if line%3 == 0 {
			message = append(message, '.')
		}
		for range line {
			message = append(message, octets[random.IntN(len(octets))])
		}
		message = append(message, "\r\n"...)
	}
	return message
}

// dialogue is a program that is talked to line by line.
type dialogue struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *os.File
	buf []byte // what it has printed and expect has not passed yet
	all []byte // all that it has printed
}

func talk(t *testing.T, name string, args ...string) *dialogue {
	t.Helper()
	d := &dialogue{t: t, cmd: command(t, name, args...)}
	out, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	t.Cleanup(func() { out.Close() })
	d.out, d.cmd.Stdout, d.cmd.Stderr = out, stdout, stdout
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.cmd.Wait() })
	return d
}

// say types a line of SMTP.
func (d *dialogue) say(line string) {
	d.t.Helper()
	d.enter(line + "\r\n")
}

func (d *dialogue) enter(text string) {
	d.t.Helper()
	if _, err := io.WriteString(d.in, text); err != nil {
		d.t.Fatalf("entering %q: %v\n%s", text, err, d.all)
	}
}

// expect waits until the program prints want.
func (d *dialogue) expect(want string) {
	d.t.Helper()
	for {
		if i := bytes.Index(d.buf, []byte(want)); i >= 0 {
			d.buf = d.buf[i+len(want):]
			return
		}
		piece := make([]byte, 4096)
		n, err := d.out.Read(piece)
		d.buf, d.all = append(d.buf, piece[:n]...), append(d.all, piece[:n]...)
		if err != nil {
			d.t.Fatalf("%q is not said before the end:\n%s", want, d.all)
		}
	}
}

// ask types a line and waits for the answer.
func (d *dialogue) ask(line, want string) {
	d.t.Helper()
	d.say(line)
	d.expect(want)
}

// end waits until the program ends by itself, as it does when the server closes
// the connection. It returns all that was printed.
func (d *dialogue) end() string {
	d.t.Helper()
	rest, _ := io.ReadAll(d.out)
	d.all = append(d.all, rest...)
	if err := d.cmd.Wait(); !exited(err) {
		d.t.Fatalf("the program does not end: %v\n%s", err, d.all)
	}
	return string(d.all)
}
