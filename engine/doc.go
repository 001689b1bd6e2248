// Package engine serves text protocols on gnet event loops: it accepts and
// admits connections, drives a codec.Session on each, carries out STARTTLS, and
// lends a connection to a goroutine for as long as something has to wait.
//
//	eng, err := engine.New(engine.Config{
//		Listeners: []engine.Listener{{
//			Listener:   ln,                // a *net.TCPListener
//			Name:       "smtp",
//			TLS:        tlsConfig,
//			NewSession: func(p *codec.Peer) codec.Session { return smtp.New(cfg, p) },
//		}},
//	})
//	...
//	err = eng.Shutdown(ctx)
//
// # A connection's life
//
// conn.go tells it from end to end. Two variables describe it, each with a table
// of legal successors and one function that changes it (phase.go):
//
//	layer   plain ─▶ upgrading ─▶ secure
//	holder  returning ─▶ loop ─▶ leaving ─▶ lent ─▶ returning …
//	                      └─▶ closing ─▶ closed  (from lent as well)
//
// # Who owns what
//
// The holder owns the whole connection: its session, buffers, link and TLS. On
// the loop nothing waits. A goroutine gets a connection together with every byte
// that was read for it (leftover input, TLS state, prefix, unsent output), and
// gives it back the same way; giving back ends with an ordinary read, because no
// event will come for bytes that are here already. A handshake computes in
// turns, which the loop runs (turn.go), or goroutines if its callbacks may wait;
// its connection stays with the loop.
//
// A loop owns its wheel of deadlines, its scratch buffers and the connections it
// holds. The engine's tables (admission, counters, lent connections) have locks
// or atomics of their own, held for a few instructions, never over I/O.
//
// # A backend behind it
//
// A codec.Relayed session asks for its backend with the Action Dial (relay.go). Both
// sides then live on one loop, where bytes are carried across as they come
// (pump.go), or are lent to two goroutines while one side is slower than the other
// (carry.go). A side that has ended its direction keeps the pair lent until the
// other has.
//
// # Data connections
//
// A session of FTP has further connections, one pair for a transfer (data.go). That is
// a goroutine of its own from the time that both are awaited (transfer.go), with a lock
// for what it and the session look at both. Its control connection stays where it is and
// is poked: Forward and Reply are called again, on the loop or on the pair's goroutines.
// One that is changing hands looks by itself when it has arrived. A client that has ended
// its direction keeps the pair lent until its last reply, and a backend's end waits for
// the transfer that its last reply is for.
//
// # Limits
//
// Only TCP listeners. IPv6 zones of link-local peers are dropped. The engine
// knows no protocol; what is said to a peer is always the session's words.
package engine
