// Package tlsbridge puts TLS on an event-loop connection, with unmodified crypto/tls.
//
// On gnet, it comes to this:
//
//	func (s *server) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
//		link := tlsbridge.NewLink(c)
//		conn := tlsbridge.Server(link, s.config, tlsbridge.Options{
//			Timeout: 10 * time.Second,
//			Wake:    link.Wake, // OnTraffic is called when the handshake has moved on
//		})
//		c.SetContext(&client{link, conn})
//		return nil, gnet.None
//	}
//
//	func (s *server) OnTraffic(c gnet.Conn) gnet.Action {
//		// conn.Read until it returns ErrWouldBlock; conn.Write the replies;
//		// conn.CloseNotify and gnet.Close at any other error.
//	}
//
//	func (s *server) OnClose(c gnet.Conn, err error) gnet.Action {
//		// link.Closed(), then conn.Abort(net.ErrClosed).
//	}
//
// The package's examples, in example_*_test.go, have the whole of it, also for STARTTLS. Any other loop works
// with a Link of its own.
//
// # How it works
//
// The handshake of crypto/tls cannot be interrupted, and costs what the client
// chooses. So it runs on a goroutine of its own, which gets its input from the
// loop and gives it its output, and which starts only when the whole ClientHello
// is there: a silent client costs bytes. That goroutine is a coroutine: it runs
// only within a turn, which is a function call, on whatever goroutine Options.Go
// puts it. On a gnet loop that is as good as having no goroutine at all: nothing
// is woken up and nothing handed over, which would cost more than the rest of the
// bridge together. A handshake computes only while it holds one of the few slots
// of a Slots, and gives that up while it waits for the peer:
//
//	reserved ──ClientHello──▶ queued ──slot──▶ computing ──▶ over
//	                                             │     ▲
//	                                       no input    slot
//	                                             ▼     │
//	                                   parked ──answer──▶ resuming
//
// Abort, the deadline and the end of the link lead from each of them to over.
// Who is resuming gets a slot before who is queued.
//
// A server's connection whose owner is a goroutine that waits, for the time of one
// transfer, has Accept. It runs the turns on that goroutine, over a Waiter: a Link
// that has the waiting apart from Read, so that no slot is held meanwhile. With the
// Binding of another connection it can demand that the client resumes that one's session.
//
// The client's end, for a connection to a backend, has it simpler: whoever connects
// waits anyway, so Client does the handshake over a link that blocks.
//
// After the handshake there is no goroutine. crypto/tls reads from a Link whose
// ErrWouldBlock it takes for a temporary error, and resumes at any byte.
//
// # Ownership
//
// A Conn has one owner at a time: the event loop, or the goroutine that the
// connection is lent to. Read, Write, CloseNotify, ConnectionState,
// HandshakeTime and SetLink are the owner's; while it is lent, Read and Write
// may run on two goroutines. Abort and Handshaking are for any goroutine.
//
// Bytes handed to Write, and those that a Link is handed, belong to the caller
// again when the call returns. What the Conn has taken from a Link and not
// delivered yet stays with the Conn when SetLink exchanges the Link.
//
// The Permit is its holder's until Server takes it over; from then on every way
// in which the handshake can end gives it back. Whoever closes the connection
// calls Abort, so that a handshake does not wait for it.
//
// # Limits
//
//   - The handshake of a client, which Client does, keeps its goroutine waiting.
//   - A callback of the tls.Config that waits, for a disk or another server,
//     holds its slot meanwhile, and the event loop if the turn runs there.
//   - A server's handshake needs a Link whose Read does not block, in Accept too. One that
//     Server began stays on its loop: lend the connection before or after.
//   - Accept learns that the peer has gone when it next has use for its bytes, not
//     while it waits for a slot.
//   - An error of Link.Write is final, a deadline that passes in it included:
//     TLS cannot take half a record back.
//   - A blocking Link sees two reads a record, header and body. That keeps the
//     buffer that crypto/tls never gives back at 18 KB instead of 41.
//   - A client whose data follows its Finished may be 1 MiB ahead of us, not
//     more, when the loop learns that the handshake is over.
package tlsbridge
