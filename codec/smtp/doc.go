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
// It has no AUTH, no BINARYMIME, no EXPN, and accepts every well-formed recipient.
package smtp
