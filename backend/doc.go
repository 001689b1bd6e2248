// Package backend holds what answers behind the negotiation: the way to a server,
// and the built-in mail drop, a Maildir.
//
// A Server is reached over TCP, in clear, under TLS or with STARTTLS, and may be
// told of the client with a PROXY header:
//
//	address, err := backend.ParseAddress("starttls://mail.internal:143")
//	if err != nil {
//		return err
//	}
//	server, err := backend.NewServer(backend.Options{Address: address, TLS: tlsConfig, Proxy: 2})
//	if err != nil {
//		return err
//	}
//	conn, err := server.Dial(ctx, session, client) // for each client, when its session asks for it
//
// A connection is made for one client and is not used again for another.
//
// The Maildir takes messages:
//
//	drop, err := backend.OpenMaildir("./maildir")
//	if err != nil {
//		log.Fatal(err)
//	}
//	msg, err := drop.Begin(env) // env is the *smtp.Envelope of the message
//	if err != nil {
//		return err
//	}
//	defer msg.Abort() // does nothing after Commit
//	if _, err := io.Copy(msg, body); err != nil {
//		return err
//	}
//	return msg.Commit() // nil: the message is on disk and stays there
//
// The Maildir is one mailbox for every recipient: it looks at no envelope,
// adds nothing to the message, and never reads one back.
package backend
