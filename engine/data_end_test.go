package engine

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
)

// partings are how a backend ends its control connection.
var partings = map[string]func(net.Conn){
	"good end": func(nc net.Conn) { _ = nc.Close() },
	"FIN":      func(nc net.Conn) { _ = socket(nc).CloseWrite() },
	"reset":    func(nc net.Conn) { _ = socket(nc).SetLinger(0); _ = socket(nc).Close() },
}

func socket(nc net.Conn) *net.TCPConn {
	if u, ok := nc.(*tls.Conn); ok {
		nc = u.NetConn()
	}
	return nc.(*net.TCPConn)
}

// A download ends with its session as something that is not whole.
func TestDownloadIsCutShortWithItsSession(t *testing.T) {
	everyLibrary(t, func(t *testing.T, l *library) {
		for range 25 {
			control, data, _ := l.download()
			partings["reset"](control.Conn)
			if _, err := io.ReadAll(data); err == nil {
				t.Fatal("it has ended as if it were whole")
			}
		}
	})
}
