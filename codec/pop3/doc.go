// Package pop3 is the part of POP3 that comes before login (RFC 1939, RFC 2449), for
// a server that is relayed to another one: greeting, CAPA, STLS (RFC 2595), and the
// dialogue of USER, PASS and AUTH (RFC 5034). From the login on, where STLS is
// illegal, bytes are carried across unseen.
//
// In clear nothing is for the backend, because credentials are never taken there. It
// is dialled for the first CAPA, USER or the like under TLS. One command at a time is
// with it; what a client sends behind that waits. APOP is not served: its challenge
// would be that of the backend's greeting.
package pop3
