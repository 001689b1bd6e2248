// Package imap is the part of IMAP4 that comes before login (RFC 9051, RFC 3501),
// for a server that is relayed to another one: greeting, capabilities, STARTTLS and
// the dialogue of LOGIN and AUTHENTICATE. From the login on, where STARTTLS is
// illegal (RFC 9051 §6.2.1), bytes are carried across unseen.
//
// In clear nothing is for the backend, because credentials are never taken there. It
// is dialled for the first CAPABILITY, LOGIN or AUTHENTICATE under TLS. Commands
// that need no backend are answered here, also later: NOOP, LOGOUT, and ID, of which
// a backend that trusts us would believe too much (x-originating-ip).
//
// One command at a time is with the backend. What a client sends behind it waits.
package imap
