// Package nntp is a session of NNTP (RFC 3977) in front of another server: greeting,
// capabilities, STARTTLS (RFC 4642), and then the commands of clients that read and
// post (RFC 3977, RFC 2980, RFC 4643) and of servers that feed (RFC 4644).
//
// The dialogue stays framed to its end, so that no STARTTLS, no COMPRESS and no
// command that is not known here ever gets to the backend, and every list of
// capabilities is filtered. Articles are passed on as they come, in both directions.
//
// Reading news in clear is legal, so that without RequireTLS the backend may be
// dialled in clear. Credentials are never taken there.
package nntp
