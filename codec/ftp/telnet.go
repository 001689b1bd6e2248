package ftp

// A control connection follows the Telnet protocol (RFC 959 §3.1), of which clients
// use the interrupt before an ABOR: IAC IP IAC DM, with the DM as urgent data, so that
// it may be missing.
const (
	iac  = 0xff
	se   = 0xf0 // the first of the commands
	will = 0xfb // the first of those with an option behind them
)

// skipTelnet is the length of the Telnet commands that in begins with. whole is false
// when one is not whole yet.
func skipTelnet(in []byte) (n int, whole bool) {
	for n < len(in) && in[n] == iac {
		size := telnetSize(in[n:])
		if size == 0 {
			return n, false
		}
		n += size
	}
	return n, true
}

// telnetSize is the length of the command that in begins with, or 0 while it is not
// whole. A lone IAC is one whose DM was urgent data.
func telnetSize(in []byte) int {
	switch {
	case len(in) < 2:
		return 0
	case in[1] < se:
		return 1
	case in[1] < will || in[1] == iac:
		return 2
	case len(in) < 3:
		return 0
	}
	return 3
}
