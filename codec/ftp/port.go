package ftp

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"starttlsd/codec"
)

// opening is what a client has asked for, while the backend's port is awaited.
type opening struct {
	how  byte   // 'P' PASV, 'E' EPSV, 'A' PORT or EPRT
	port uint16 // of the client's, with 'A'
}

// lowest is the least port that data connections go to: below it are those of other
// services (RFC 2577 §3).
const lowest = 1024

func (s *Session) pasv(_ *command, _, _, up, out []byte) ([]byte, []byte, codec.Action) {
	why := ""
	switch {
	case s.epsvOnly:
		why = epsvOnly
	case s.told() == nil:
		why = "522 Use EPSV" // there is no address of IPv4
	default:
		return s.open(opening{how: 'P'}, up, out)
	}
	out, action := s.refuse(out, why)
	return up, out, action
}

// epsvOnly: RFC 2428 §4.
const epsvOnly = "503 EPSV ALL was said"

// told is the address of IPv4 in the reply to PASV.
func (s *Session) told() []byte {
	a := s.peer.Local().Addr().Unmap()
	switch {
	case !a.Is4():
		return nil
	case s.cfg.PASV != nil:
		return s.cfg.PASV
	}
	return a.AsSlice()
}

// family is the number of the control connection's address family (RFC 2428 §2).
func (s *Session) family() string {
	if s.peer.Local().Addr().Unmap().Is4() {
		return "1"
	}
	return "2"
}

func (s *Session) epsv(_ *command, _, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	switch text := codec.Upper(arg); {
	case text == "ALL":
		s.epsvOnly = true
		return up, say(out, "200 EPSV ALL"), codec.Continue
	case text == "" || text == s.family():
		return s.open(opening{how: 'E'}, up, out)
	case isNumber(arg):
		out, action := s.refuse(out, "522 Use ("+s.family()+")")
		return up, out, action
	}
	out, action := s.refuse(out, "501 A number or ALL is expected")
	return up, out, action
}

func (s *Session) port(_ *command, _, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	n, ok := sixNumbers(string(arg))
	if !ok {
		return s.aim(netip.AddrPort{}, up, out)
	}
	addr := netip.AddrFrom4([4]byte{n[0], n[1], n[2], n[3]})
	return s.aim(netip.AddrPortFrom(addr, uint16(n[4])<<8|uint16(n[5])), up, out)
}

// sixNumbers reads h1,h2,h3,h4,p1,p2 (RFC 959 §4.1.2).
func sixNumbers(text string) (n [6]byte, ok bool) {
	fields := strings.Split(text, ",")
	if len(fields) != len(n) {
		return n, false
	}
	for i, f := range fields {
		v, err := strconv.ParseUint(f, 10, 8)
		if err != nil {
			return n, false
		}
		n[i] = byte(v)
	}
	return n, true
}

// eprt reads |1|132.235.1.2|6275| or |2|1080::8:800:200C:417A|5282| (RFC 2428 §2).
func (s *Session) eprt(_ *command, _, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	fields := strings.Split(string(arg), string(arg[0]))
	if len(fields) != 5 || fields[0] != "" || fields[4] != "" {
		return s.aim(netip.AddrPort{}, up, out)
	}
	addr, err := netip.ParseAddr(fields[2])
	port, err2 := strconv.ParseUint(fields[3], 10, 16)
	if err != nil || err2 != nil || addr.Zone() != "" || addr.Is4() != (fields[1] == "1") {
		return s.aim(netip.AddrPort{}, up, out)
	}
	return s.aim(netip.AddrPortFrom(addr, uint16(port)), up, out)
}

// aim is for a client that wants to be connected to: at its own address alone, and at
// no port of another service (RFC 2577 §3).
func (s *Session) aim(to netip.AddrPort, up, out []byte) ([]byte, []byte, codec.Action) {
	why := ""
	switch {
	case !s.cfg.Active:
		why = "502 Use PASV or EPSV"
	case s.epsvOnly:
		why = epsvOnly
	case !to.IsValid():
		why = "501 An address and a port are expected"
	case to.Addr().Unmap() != s.peer.Remote.Addr().Unmap(), to.Port() < lowest:
		why = "504 Only your own address is possible, and a port of 1024 or more"
	default:
		return s.open(opening{how: 'A', port: to.Port()}, up, out)
	}
	out, action := s.refuse(out, why)
	return up, out, action
}

// open asks the backend for a port.
func (s *Session) open(o opening, up, out []byte) ([]byte, []byte, codec.Action) {
	r := s.relay
	if r.data == nil {
		out, action := s.refuse(out, "502 There are no data connections")
		return up, out, action
	}
	r.opening = o
	verb := "PASV"
	if r.data.Extended() {
		verb = "EPSV"
	}
	return s.send(open, []byte(verb), up), out, codec.Continue
}

// opened is our reply, when the backend's to PASV or EPSV is there. Its address is
// not looked at.
func (s *Session) opened(code int, line string) string {
	r := s.relay
	port := uint16(0)
	switch code {
	case 227:
		port = passivePort(line[3:])
	case 229:
		port = extendedPort(line)
	}
	if port < lowest {
		return "425 The server behind this one opens no port"
	}
	if r.opening.how == 'A' {
		r.data.Aim(r.opening.port, port)
		return "200 Your port is known"
	}
	ours, err := r.data.Listen(port)
	switch {
	case err != nil:
		return "425 No port is free at the moment"
	case r.opening.how == 'E':
		return fmt.Sprintf("229 Entering Extended Passive Mode (|||%d|)", ours)
	}
	a := s.told()
	return fmt.Sprintf("227 Entering Passive Mode (%d,%d,%d,%d,%d,%d)", a[0], a[1], a[2], a[3], ours>>8, ours&0xff)
}

// passivePort finds the six numbers in a reply, which may stand in brackets or not
// (RFC 1123 §4.1.2.6).
func passivePort(text string) uint16 {
	for field := range strings.FieldsFuncSeq(text, func(c rune) bool { return (c < '0' || c > '9') && c != ',' }) {
		if n, ok := sixNumbers(strings.Trim(field, ",")); ok {
			return uint16(n[4])<<8 | uint16(n[5])
		}
	}
	return 0
}

// extendedPort finds (|||port|) in a reply (RFC 2428 §3).
func extendedPort(line string) uint16 {
	_, text, _ := strings.Cut(line, "(")
	text, _, ok := strings.Cut(text, ")")
	if !ok || len(text) < 5 || !bytes.Equal([]byte(text[:3]), bytes.Repeat([]byte{text[0]}, 3)) || text[len(text)-1] != text[0] {
		return 0
	}
	port, err := strconv.ParseUint(text[3:len(text)-1], 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}
