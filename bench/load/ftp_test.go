package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// run has o run against s, with a login.
func (s *ftpStub) run(t *testing.T, o Options) *Result {
	t.Helper()
	scheme := "ftp"
	if s.implicit {
		scheme = "ftps"
	}
	o.Mode, o.Target, o.User, o.Password = Transfer, target(t, scheme, s.start(t)), "u", "p w"
	return mustRun(t, o)
}

func TestFilesGoAcrossInTheSessionsTLS(t *testing.T) {
	for _, upload := range []bool{false, true} {
		for name, s := range map[string]*ftpStub{
			"TLS 1.3":         {},
			"TLS 1.2":         {max: tls.VersionTLS12},
			"implicit TLS":    {implicit: true},
			"226 comes early": {early: true},
		} {
			t.Run(fmt.Sprintf("%s, upload %v", name, upload), func(t *testing.T) {
				s.size = 200_000
				res := s.run(t, Options{Upload: upload, Connections: 3, Operations: 12, Size: s.size, Sources: true})
				clean(t, res, 12)
				if res.Bytes != 12*int64(s.size) {
					t.Errorf("%d bytes", res.Bytes)
				}
				if s.resumed != 12 || s.fresh != 0 || res.Resumed != 12 {
					t.Errorf("%d data connections resumed the session's TLS, %d did not; the client has seen %d", s.resumed, s.fresh, res.Resumed)
				}
			})
		}
	}
}

func TestUploadsAreWholeAndHaveNamesOfTheirOwn(t *testing.T) {
	s := &ftpStub{}
	clean(t, s.run(t, Options{Upload: true, Connections: 3, Operations: 12, Size: 100_001, File: "in/x"}), 12)
	names := make(map[string]bool)
	for _, u := range s.uploads {
		names[u.name] = true
		if u.size != 100_001 || !u.same || !u.whole {
			t.Errorf("%+v", u)
		}
	}
	if len(s.uploads) != 12 || len(names) > 3 || !names["in/x.0"] {
		t.Errorf("%d uploads to %v", len(s.uploads), names)
	}
}

func TestPlainFiles(t *testing.T) {
	for _, upload := range []bool{false, true} {
		s := &ftpStub{size: 100_000}
		res := s.run(t, Options{Plain: true, Upload: upload, Connections: 1, Operations: 3, Size: s.size})
		clean(t, res, 3)
		if res.TLS != "" || slices.Contains(s.said, "AUTH TLS") || slices.Contains(s.said, "PROT P") {
			t.Errorf("TLS %q; %q", res.TLS, s.said)
		}
	}
}

func TestASessionSaysOnceWhatHoldsForAll(t *testing.T) {
	s := &ftpStub{size: 1}
	clean(t, s.run(t, Options{Connections: 1, Operations: 2}), 2)
	want := []string{"FEAT", "AUTH TLS", "FEAT", "USER u", "PASS p w", "PBSZ 0", "PROT P", "TYPE I",
		"EPSV", "RETR load.bin", "EPSV", "RETR load.bin", "QUIT"}
	if !slices.Equal(s.said, want) {
		t.Errorf("said %q, want %q", s.said, want)
	}
}

func TestFailuresOfFilesHaveTheirKind(t *testing.T) {
	for name, test := range map[string]struct {
		s    *ftpStub
		kind Kind
		want string
		o    Options
	}{
		"a download without close_notify": {&ftpStub{size: 100_000, truncate: true}, Lost, "no close_notify", Options{Size: 100_000}},
		"an empty one, without":           {&ftpStub{truncate: true}, Lost, "no close_notify", Options{}},
		"one of another size":             {&ftpStub{size: 5}, Wrong, "has 5 bytes, want 6", Options{Size: 6}},
		"one that is not whole":           {&ftpStub{size: 5, after: "451 disk"}, Wrong, "after the file: got \"451 disk\"", Options{}},
		"no such file":                    {&ftpStub{refuse: "550 none"}, Wrong, "550 none", Options{}},
		"an upload that is not taken":     {&ftpStub{refuse: "553 no"}, Wrong, "553 no", Options{Upload: true}},
		"an upload that is not kept":      {&ftpStub{after: "452 full"}, Wrong, "452 full", Options{Upload: true}},
		"no data connection for now":      {&ftpStub{refuse: "425 busy"}, Refused, "425 busy", Options{}},
		"no port":                         {&ftpStub{epsv: "229 (none)"}, Wrong, "want a port", Options{}},
		"no EPSV":                         {&ftpStub{epsv: "500-what\r\n500 what"}, Wrong, "want 229", Options{}},
		"nobody on the port":              {&ftpStub{epsv: "229 (|||1|)"}, Dial, "data connection: connecting", Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			test.o.Connections, test.o.Operations = 1, 1
			res := test.s.run(t, test.o)
			one(t, res, test.kind)
			if said := res.Examples[test.kind]; !strings.Contains(said, test.want) {
				t.Errorf("%q, want %q", said, test.want)
			}
		})
	}
}

// As a server says it that wants the session resumed.
func TestWhatTheServerSaysToAFailedHandshakeIsTold(t *testing.T) {
	d := dialogues["ftp"]
	d.says = map[string]string{"FEAT": "211 none\r\n", "AUTH TLS": "234 go\r\n", "USER": "331 who\r\n", "PASS": "230 in\r\n",
		"RETR": "150 go\r\n522 session reuse required\r\n"}
	ln := listen(t) // where the data connection ends at once
	go func() {
		if nc, err := ln.Accept(); err == nil {
			_ = nc.Close()
		}
	}()
	defer ln.Close()
	_, port, _ := strings.Cut(ln.Addr().String(), ":")
	d.says["EPSV"] = "229 (|||" + port + "|)\r\n"
	res := mustRun(t, Options{Mode: Transfer, Target: target(t, "ftp", play(t, d, new(spoken))), Connections: 1, Operations: 1,
		User: "u", Password: "p"})
	one(t, res, Handshake)
	if said := res.Examples[Handshake]; !strings.Contains(said, "reuse required") {
		t.Error(said)
	}
}

func TestBusyFTPServers(t *testing.T) {
	for _, text := range []string{"421 come back", "421-come\r\n 421 back\r\n421 later"} {
		d := dialogues["ftp"]
		d.greeting = text + "\r\n"
		one(t, mustRun(t, Options{Target: target(t, "ftp", play(t, d, new(spoken))), Connections: 1, Operations: 1}), Refused)
	}
}

func TestPortsOfEPSV(t *testing.T) {
	for text, want := range map[string]uint16{
		"229 Entering Extended Passive Mode (|||6446|)\r\n": 6446,
		"229 (!!!65535!).\r\n":                              65535,
		"229 (|||65536|)":                                   0,
		"229 (|||0|)":                                       0,
		"229 (|||-1|)":                                      0,
		"229 (|||+1|)":                                      0,
		"229 (||||)":                                        0,
		"229 (|||1)":                                        0,
		"229 (||!1|)":                                       0,
		"229 (|1|h|1|)":                                     0,
		"229 (|||1|":                                        0,
		"229 ()":                                            0,
		"229":                                               0,
	} {
		if port, ok := passivePort([]byte(text)); ok != (want > 0) || ok && port != want {
			t.Errorf("%q: %d, %v", text, port, ok)
		}
	}
}

func TestFilesTakeNoMemory(t *testing.T) {
	const size = 128 << 20
	for _, upload := range []bool{false, true} {
		s := &ftpStub{size: size}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		res := s.run(t, Options{Upload: upload, Connections: 1, Operations: 1, Size: size})
		runtime.ReadMemStats(&after)
		clean(t, res, 1)
		if taken := after.TotalAlloc - before.TotalAlloc; taken > size/8 {
			t.Errorf("upload %v: %d bytes of memory", upload, taken)
		}
	}
}

func TestARunEndsWithinAFile(t *testing.T) {
	endless := &ftpStub{size: 1 << 40} // until its client is gone
	res := endless.run(t, Options{Connections: 2, Operations: 2, Timeout: 200 * time.Millisecond})
	if res.Done != 0 || res.Errors[Timeout] != 2 {
		t.Errorf("%d done, %v", res.Done, res.Examples)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	res, err := Run(ctx, Options{Mode: Transfer, Target: target(t, "ftp", endless.start(t)), Connections: 2,
		Timeout: time.Hour, User: "u", Password: "p"})
	if err != nil || !res.Cut || res.Failed() > 0 || res.Done != 0 {
		t.Errorf("%+v, %v", res, err)
	}
}
