// Package sieve is the part of ManageSieve that comes before login (RFC 5804), for a
// server that is relayed to another one: the list of capabilities, STARTTLS and the
// dialogue of AUTHENTICATE. From the login on, where STARTTLS is illegal, bytes are
// carried across unseen.
//
// In clear nothing is for the backend, because credentials are never taken there.
// Under TLS the first thing that a client gets is a list of capabilities, unasked
// (RFC 5804 §2.2), which is the backend's: that is dialled at once. One command at a
// time is with it; what a client sends behind that waits.
package sieve
