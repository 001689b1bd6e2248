package tlsbridge

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

// ErrWouldBlock is returned, never wrapped, when nothing can be read without
// waiting. It is a temporary net.Error, as EAGAIN is: that is what lets
// crypto/tls resume in the middle of a record.
var ErrWouldBlock error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "tlsbridge: would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// temporary is the test of crypto/tls: the error itself, not one that it wraps.
// The interface is net.Error, whose Temporary is deprecated for all others.
func temporary(err error) bool {
	e, ok := err.(interface {
		Timeout() bool
		Temporary() bool
	})
	return ok && e.Temporary()
}

var (
	errHandshaking = errors.New("tlsbridge: write before the end of the handshake")
	errPermitUsed  = errors.New("tlsbridge: permit was used before")
	errAborted     = errors.New("tlsbridge: handshake aborted")
	errExited      = errors.New("tlsbridge: a TLS callback ended the handshake's goroutine")
	errBudget      = errors.New("tlsbridge: too many bytes before the end of the handshake")
	errNotTLS      = errors.New("tlsbridge: first record is no TLS handshake")
)

// Reason classifies a failed handshake, for logs and counters.
type Reason uint8

// The reasons for which a handshake fails.
const (
	ReasonProtocol          Reason = iota // the peer broke the protocol in some other way
	ReasonInternal                        // our fault: a callback failed or panicked, an unusable certificate
	ReasonBusy                            // no Permit was to be had
	ReasonTimeout                         // the deadline passed
	ReasonClosed                          // the connection ended, or the owner gave up
	ReasonBudget                          // the peer sent more than Options.Budget
	ReasonNotTLS                          // what came was no TLS
	ReasonNoVersion                       // no protocol version in common
	ReasonNoCipherOrGroup                 // no cipher suite, group or signature algorithm in common
	ReasonNoALPN                          // no application protocol in common
	ReasonUnknownSNI                      // no certificate for the name
	ReasonClientCertificate               // the client's certificate is missing or was refused
	ReasonPeerAlert                       // the peer gave up and said why
	ReasonNotResumed                      // a Binding demands a session, and it was not resumed

	NumReasons = iota
)

var reasonNames = [NumReasons]string{
	"protocol", "internal", "busy", "timeout", "closed", "budget", "not_tls", "no_version",
	"no_cipher_or_group", "no_alpn", "unknown_sni", "client_certificate", "peer_alert",
	"not_resumed",
}

func (r Reason) String() string { return reasonNames[r] }

// MarshalText returns the name, so that structured logs have it too.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// HandshakeError is what Conn.Read returns when the handshake has failed. The
// alert, where crypto/tls has one for it, is already with the link.
type HandshakeError struct {
	Reason Reason
	Err    error // the cause: of crypto/tls, of the link, or the one given to Abort
}

func (e *HandshakeError) Error() string {
	return "TLS handshake: " + e.Reason.String() + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }

// PanicError is the cause of a handshake that ended with a panic in a callback.
type PanicError struct {
	Value any
	Stack []byte // as of debug.Stack
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic in a TLS callback: %v", e.Value) }

// reasonTexts tell apart the failures for which crypto/tls has no type. The first match counts.
var reasonTexts = []struct {
	prefix string
	reason Reason
}{
	{"tls: client offered only unsupported versions", ReasonNoVersion},
	{"tls: client offered TLS version older", ReasonNoVersion},
	{"tls: no cipher suite supported by both", ReasonNoCipherOrGroup},
	{"tls: no key exchanges supported by both", ReasonNoCipherOrGroup},
	{"tls: no supported elliptic curves offered", ReasonNoCipherOrGroup},
	{"tls: peer doesn't support any of the certificate's signature algorithms", ReasonNoCipherOrGroup},
	{"tls: client requested unsupported application protocols", ReasonNoALPN},
	{"tls: client did not request an application protocol", ReasonNoALPN},
	{"tls: no certificates configured", ReasonUnknownSNI},
	{"tls: client didn't provide a certificate", ReasonClientCertificate},
	{"tls: client certificate", ReasonClientCertificate},
	{"tls: client sent certificate", ReasonClientCertificate},
	{"tls: failed to parse client certificate", ReasonClientCertificate},
	{"tls: invalid signature by the client certificate", ReasonClientCertificate},
	{"tls: internal error", ReasonInternal},
	{"tls: failed to sign", ReasonInternal},
	{"tls: unsupported certificate", ReasonInternal},
	{"tls: certificate", ReasonInternal},
	{"tls: ", ReasonProtocol},
	{"local error: ", ReasonProtocol},
}

// causeReason classifies what ended a handshake from outside: the link, a limit, Abort.
func causeReason(err error) Reason {
	switch {
	case errors.Is(err, errBudget):
		return ReasonBudget
	case errors.Is(err, errNotTLS):
		return ReasonNotTLS
	case errors.Is(err, ErrBusy):
		return ReasonBusy
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ReasonTimeout
	}
	return ReasonClosed
}

// tlsReason classifies an error of crypto/tls or of a callback. It is the only
// place that looks at the text of one.
func tlsReason(err error) Reason {
	if header, ok := errors.AsType[tls.RecordHeaderError](err); ok && header.Conn != nil {
		return ReasonNotTLS // Conn is set for the very first record only
	}
	if errors.Is(err, ErrNotResumed) {
		return ReasonNotResumed
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return ReasonClientCertificate
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return ReasonPeerAlert
	}
	if err == io.EOF { // close_notify instead of an answer
		return ReasonClosed
	}
	text := err.Error()
	for _, known := range reasonTexts {
		if strings.HasPrefix(text, known.prefix) {
			return known.reason
		}
	}
	return ReasonInternal
}
