// Package backend holds what answers behind the negotiation: for now the
// built-in mail drop, a Maildir.
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
