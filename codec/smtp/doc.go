// Package smtp is the server side of SMTP (RFC 5321) as a codec.Session: a
// complete receiver that hands its messages to a Backend. It knows no sockets.
//
//	cfg := &smtp.Config{Hostname: "mx.example.org", TLS: true, Backend: drop}
//	session := smtp.New(cfg, peer) // one for each connection
//
// It speaks PIPELINING, SIZE, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES, CHUNKING
// and STARTTLS. Commands are answered on the event loop; a session asks to be lent
// when there is content to store, and to be returned when the reply to it is said.
//
// The receiver has no AUTH, no BINARYMIME, no EXPN, and accepts every well-formed recipient.
//
// A Gateway is the session in front of a server that takes the mail, in SMTP or in
// LMTP (RFC 2033). The dialogue stays framed to its end: commands of one table go to
// the backend, in lines of our making; content is passed on as it is, unless it could
// be two messages; of the backend's extensions the client sees those that work
// through us. A backend that has not offered PIPELINING gets one command at a time,
// one that has not offered CHUNKING no BDAT. The client's LOGIN is not told with
// XCLIENT, and a backend that does not offer XCLIENT takes all clients for us: it
// must not trust our address.
package smtp
