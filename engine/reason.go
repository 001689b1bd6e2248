package engine

// Reason is why a connection ended or was turned away.
type Reason uint8

// Reasons of connections that were served.
const (
	ReasonDone             Reason = iota // the session ended it (QUIT, too many errors)
	ReasonPeerClosed                     // the peer ended it in good order
	ReasonReset                          // the transport failed under it
	ReasonCommandTimeout                 // no complete command in time
	ReasonBodyTimeout                    // a body stalled or trickled
	ReasonOutputTimeout                  // the peer did not read our replies
	ReasonHandshakeTimeout               // no TLS in time
	ReasonHandshakeFailed                // no TLS
	ReasonTLSError                       // TLS failed after the handshake
	ReasonInjected                       // plaintext behind STARTTLS
	ReasonDrained                        // shutdown
	ReasonNoDescriptor                   // the process is out of descriptors
	ReasonPanic                          // a bug of ours
	ReasonIdle                           // a relayed session was idle for too long
	ReasonNoBackend                      // no backend could be reached
	ReasonBackendClosed                  // the backend ended the session in good order
	ReasonBackendLost                    // the backend's connection failed, or ended where it should not
	ReasonBackendTimeout                 // the backend did not answer
	ReasonProxyHeader                    // no PROXY header came, or a malformed one

	// Reasons of connections that were turned away at the door.
	ReasonMaxConnections
	ReasonClientConnections
	ReasonClientRate
	ReasonNoTLS     // implicit TLS, and no handshake can be served
	ReasonUntrusted // not one of the proxies that are expected

	numReasons
)

var reasonNames = [numReasons]string{
	ReasonDone:              "done",
	ReasonPeerClosed:        "peer_closed",
	ReasonReset:             "reset",
	ReasonCommandTimeout:    "command_timeout",
	ReasonBodyTimeout:       "body_timeout",
	ReasonOutputTimeout:     "output_timeout",
	ReasonHandshakeTimeout:  "handshake_timeout",
	ReasonHandshakeFailed:   "handshake_failed",
	ReasonTLSError:          "tls_error",
	ReasonInjected:          "injected",
	ReasonDrained:           "drained",
	ReasonNoDescriptor:      "no_descriptor",
	ReasonPanic:             "panic",
	ReasonIdle:              "idle",
	ReasonNoBackend:         "no_backend",
	ReasonBackendClosed:     "backend_closed",
	ReasonBackendLost:       "backend_lost",
	ReasonBackendTimeout:    "backend_timeout",
	ReasonProxyHeader:       "proxy_header",
	ReasonUntrusted:         "untrusted",
	ReasonMaxConnections:    "max_connections",
	ReasonClientConnections: "client_connections",
	ReasonClientRate:        "client_rate",
	ReasonNoTLS:             "no_tls",
}

func (r Reason) String() string { return reasonNames[r] }

// TurnedAway reports whether r is why a connection was not let in.
func (r Reason) TurnedAway() bool { return r >= ReasonMaxConnections }
