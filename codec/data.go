package codec

// Data are the connections for files and lists that a Relayed session has beside its
// own (RFC 959 §3.2): one of the client's and one of the backend's, for one transfer
// at a time. It is the engine's. A session finds it in the Client that Introduce is
// given, and may call it in its own methods, from Introduce until End; nothing waits.
//
// Whenever State has changed by itself, the engine calls Forward and then Reply again,
// with what is buffered or with nothing.
type Data interface {
	// Listen opens a port where the client may connect for the next transfer, and
	// gives up what there was before. backend is the port of the backend's to connect
	// to, at the address of its control connection. An error means that there is no
	// port to be had now.
	Listen(backend uint16) (port uint16, err error)

	// Aim is Listen for a client that wants to be connected to, at its own address.
	Aim(client, backend uint16)

	// Connect brings both connections about. The State has to be DataReady, and is
	// DataConnecting then. secure asks for TLS on the client's.
	Connect(way Way, secure bool)

	// Start begins the handshake, and then the transfer. The State has to be
	// DataConnected, and is DataSecuring then, or DataMoving without TLS.
	Start()

	// Abort cuts a transfer short for the client at once. The backend, which is about to
	// be told, has a moment to end its connection by itself, up to Close. The State is
	// DataFailed then, without a Fault.
	Abort()

	// Close gives up what there is. A transfer that is not over is cut short, so that
	// nobody takes a part for the whole. The client of an upload has a moment to notice
	// that nobody reads it, and to look for the reply. The State is DataNone then.
	Close()

	State() DataState

	// Fault is why the State is DataFailed.
	Fault() DataFault

	// Extended reports whether the backend has to be asked with EPSV, because its
	// address is not of IPv4 (RFC 2428).
	Extended() bool
}

// Way is the direction of a transfer.
type Way uint8

const (
	Download Way = iota // from the backend to the client
	Upload              // from the client to the backend
)

// DataState is how far a transfer has come.
type DataState uint8

const (
	DataNone       DataState = iota // there is none
	DataReady                       // a port is open, or is known
	DataConnecting                  // the connections are awaited. Next: connected, failed
	DataConnected                   // they are there
	DataSecuring                    // the client's handshake is done. Next: moving, failed
	DataMoving                      // bytes go across. Next: done, failed
	DataDone                        // all is said, to the last byte and the end
	DataFailed                      // see Fault
)

// DataFault is why a transfer has failed.
type DataFault uint8

const (
	NoFault         DataFault = iota
	FaultNoClient             // the client did not connect in time, or could not be connected to
	FaultNoBackend            // the backend's port could not be connected to
	FaultBusy                 // there are too many handshakes
	FaultTLS                  // the client's handshake has failed
	FaultNotResumed           // it was not of the control connection's session
	FaultTruncated            // the client's stream has ended without close_notify
	FaultClient               // the client's connection has failed, or it stalls
	FaultBackend              // the backend's has, or it stalls
	FaultRefused              // the backend has refused the command; only counted

	NumDataFaults
)

func (f DataFault) String() string {
	return [NumDataFaults]string{"none", "no_client", "no_backend", "busy", "tls", "not_resumed", "truncated", "client", "backend", "refused"}[f]
}
