package tlsbridge

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"
)

func TestErrWouldBlockIsTemporaryItself(t *testing.T) {
	e, ok := ErrWouldBlock.(net.Error)
	if !ok || !e.Timeout() || !temporary(ErrWouldBlock) {
		t.Error("crypto/tls would take it for the end")
	}
	if temporary(&HandshakeError{Err: ErrWouldBlock}) {
		t.Error("a wrapped error is final for crypto/tls")
	}
}

func TestReasonsAreLoggedByName(t *testing.T) {
	seen := map[string]bool{}
	for r := range Reason(len(reasonNames)) {
		seen[r.String()] = true
	}
	if len(seen) != len(reasonNames) || seen[""] {
		t.Errorf("names %v", reasonNames)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("handshake failed", "reason", ReasonNoALPN)
	if !strings.Contains(log.String(), `"reason":"no_alpn"`) {
		t.Error(log.String())
	}
	if last := ReasonNotResumed; int(last) != len(reasonNames)-1 || last.String() != "not_resumed" {
		t.Error("a reason has no name")
	}
}
