package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// ftpServer is an FTP server in clear, with files in memory.
type ftpServer struct {
	addr string
	// pasv is the reply to PASV that tells of a port; nil: an honest one.
	pasv func(port int) string
	// reply changes what is said to a command, the line without its end; nil: nothing.
	reply func(line, text string) string

	mu    sync.Mutex
	files map[string][]byte
	torn  map[string]error // uploads that have ended with an error
	said  []string         // commands
}

func startFTPServer(t *testing.T) *ftpServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &ftpServer{addr: ln.Addr().String(), files: map[string][]byte{}, torn: map[string]error{}}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			served.Go(func() { s.serve(nc) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		served.Wait()
	})
	return s
}

// ftpSession is one of the server's.
type ftpSession struct {
	*ftpServer
	nc   net.Conn
	data net.Listener // after PASV
}

func (s *ftpServer) serve(nc net.Conn) {
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(5 * time.Minute))
	c := &ftpSession{ftpServer: s, nc: nc}
	defer c.closeData()
	r := bufio.NewReader(nc)
	_, _ = io.WriteString(nc, "220 stub\r\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		s.mu.Lock()
		s.said = append(s.said, line)
		s.mu.Unlock()
		if !c.answer(line) {
			return
		}
	}
}

func (c *ftpSession) say(line, text string) {
	if c.reply != nil {
		text = c.reply(line, text)
	}
	_, _ = io.WriteString(c.nc, text)
}

func (c *ftpSession) answer(line string) bool {
	verb, arg, _ := strings.Cut(line, " ")
	switch verb {
	case "USER":
		c.say(line, "331 password\r\n")
	case "PASS":
		c.say(line, "230 in\r\n")
	case "PASV":
		c.closeData()
		c.data, _ = net.Listen("tcp", "127.0.0.1:0")
		port := c.data.Addr().(*net.TCPAddr).Port
		text := fmt.Sprintf("227 Entering Passive Mode (127,0,0,1,%d,%d)\r\n", port>>8, port&0xff)
		if c.pasv != nil {
			text = c.pasv(port)
		}
		c.say(line, text)
	case "RETR", "STOR":
		if arg == "endless" || arg == "flood" { // commands are answered meanwhile
			data := c.data
			c.data = nil
			go c.endless(line, data)
			return true
		}
		if arg == "parting" {
			c.parting(line)
			return false
		}
		c.transfer(line, verb == "STOR", arg)
	case "STAT":
		c.say(line, "211-status\r\n"+strings.Repeat(" "+strings.Repeat("x", 900)+"\r\n", 60)+"211 end\r\n")
	case "QUIT":
		c.say(line, "221 bye\r\n")
		return false
	default:
		c.say(line, "200 ok\r\n")
	}
	return true
}

func (c *ftpSession) closeData() {
	if c.data != nil {
		_ = c.data.Close()
		c.data = nil
	}
}

func (c *ftpSession) transfer(line string, up bool, name string) {
	c.mu.Lock()
	content, known := c.files[name]
	c.mu.Unlock()
	if !up && !known || c.data == nil || name == "refused" {
		c.say(line, "550 no\r\n")
		return
	}
	_ = c.data.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second))
	nc, err := c.data.Accept()
	c.closeData()
	if err != nil {
		c.say(line, "425 no connection\r\n")
		return
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	c.say(line, "150 go\r\n")
	if up {
		var all []byte
		all, err = io.ReadAll(nc)
		c.mu.Lock()
		if c.files[name] = all; err != nil {
			c.torn[name] = err
		}
		c.mu.Unlock()
	} else {
		_, err = io.Copy(nc, bytes.NewReader(content))
		_ = nc.Close()
	}
	if err != nil {
		c.say(line, "426 broken\r\n")
		return
	}
	c.say(line, "226 done\r\n")
}

// parting says all that there is to a download and ends the session; the file comes last.
func (c *ftpSession) parting(line string) {
	nc, err := c.data.Accept()
	if err != nil {
		return
	}
	defer nc.Close()
	c.say(line, "150 go\r\n226 done\r\n421 Timeout.\r\n")
	_ = c.nc.Close()
	time.Sleep(200 * time.Millisecond)
	c.mu.Lock()
	content := c.files["parting"]
	c.mu.Unlock()
	_, _ = nc.Write(content)
}

// endless sends until it cannot; a flood goes over the control connection as well.
func (c *ftpSession) endless(line string, data net.Listener) {
	defer data.Close()
	nc, err := data.Accept()
	if err != nil {
		return
	}
	defer nc.Close()
	c.say(line, "150 go\r\n")
	if line == "RETR flood" {
		go func() {
			text := []byte(strings.Repeat("150-"+strings.Repeat("x", 900)+"\r\n", 60))
			for err := error(nil); err == nil; {
				_, err = c.nc.Write(text)
			}
		}()
	}
	for err == nil {
		_, err = nc.Write(make([]byte, 64<<10))
	}
	c.say(line, "426 broken\r\n")
}

// commands is how many have come that begin with these words.
func (s *ftpServer) commands(words string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.said {
		if strings.HasPrefix(line+" ", words+" ") {
			n++
		}
	}
	return n
}

func (s *ftpServer) upload(name string) (content []byte, torn error, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, ok = s.files[name]
	return content, s.torn[name], ok
}

// ftpClient is a client that knows the lines and the data connections of a session.
type ftpClient struct {
	*talker
	cfg *tls.Config // with the session of this connection alone
}

var ftpDialect = func() *dialect {
	for _, d := range dialects {
		if d.name == "ftp" {
			return d
		}
	}
	panic("none")
}()

// ftpLogin is a session up to PROT P and the login.
func ftpLogin(t *testing.T, addr string, version uint16) *ftpClient {
	t.Helper()
	c := &ftpClient{talk(t, ftpDialect, addr).greeted(), &tls.Config{
		InsecureSkipVerify: true, ServerName: "localhost", MinVersion: version, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}}
	c.ask(ask{"AUTH TLS\r\n", "^234"})
	tc := tls.Client(c.Conn, c.cfg)
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	c.Conn, c.r = tc, bufio.NewReader(tc)
	for _, a := range []ask{{"PBSZ 0\r\n", "^200"}, {"PROT P\r\n", "^200"}, {"USER u\r\n", "^331"}, {"PASS p\r\n", "^230"}} {
		c.ask(a)
	}
	return c
}

// epsv returns the port that is opened.
func (c *ftpClient) epsv() (port int) {
	c.t.Helper()
	reply := c.ask(ask{"EPSV\r\n", "^229"})
	_, text, _ := strings.Cut(reply, "(|||")
	if _, err := fmt.Sscanf(text, "%d|)", &port); err != nil {
		c.t.Fatalf("%q: %v", reply, err)
	}
	return port
}

// dialData connects to a port from an address; "" is any.
func (c *ftpClient) dialData(port int, from string) *net.TCPConn {
	c.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	nc, err := d.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	return nc.(*net.TCPConn)
}

// begin opens a data connection for a command, up to the handshake.
func (c *ftpClient) begin(command string) *tls.Conn {
	c.t.Helper()
	nc := c.dialData(c.epsv(), "")
	c.ask(ask{command + "\r\n", "^150"})
	return tls.Client(nc, c.cfg)
}

// store uploads, and returns the last reply.
func (c *ftpClient) store(name string, content []byte) string {
	c.t.Helper()
	tc := c.begin("STOR " + name)
	if _, err := tc.Write(content); err != nil {
		c.t.Error("uploading: ", err)
	}
	_ = tc.CloseWrite()
	_ = tc.NetConn().(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(tc); len(rest) > 0 || err != nil {
		c.t.Errorf("behind an upload: %q, %v", rest, err)
	}
	_ = tc.Close()
	return c.until(c.d.final)
}

// retrieve downloads, to the close_notify and the FIN, and returns the last reply.
func (c *ftpClient) retrieve(name string) ([]byte, string) {
	c.t.Helper()
	tc := c.begin("RETR " + name)
	content, err := io.ReadAll(tc)
	if err != nil {
		c.t.Error("downloading: ", err)
	}
	if rest, err := io.ReadAll(tc.NetConn()); len(rest) > 0 || err != nil {
		c.t.Errorf("behind the close_notify: %q, %v", rest, err)
	}
	_ = tc.Close()
	return content, c.until(c.d.final)
}

// accepts is for active mode: a download after the command that tells of the port.
func (c *ftpClient) accepts(name, command string) ([]byte, string) {
	c.t.Helper()
	host, _, _ := net.SplitHostPort(c.LocalAddr().String())
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer ln.Close()
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second))
	c.ask(ask{fmt.Sprintf(command+"\r\n", ln.Addr().(*net.TCPAddr).Port), "^200"})
	c.send("RETR " + name + "\r\n")
	nc, err := ln.Accept()
	if err != nil {
		c.t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	c.until("^150 ")
	content, err := io.ReadAll(tls.Client(nc, c.cfg))
	if err != nil {
		c.t.Error("downloading: ", err)
	}
	return content, c.until(c.d.final)
}
