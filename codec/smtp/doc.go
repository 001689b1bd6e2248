// Package smtp is the server side of SMTP (RFC 5321) as a codec.Session.
package smtp
