// Package ftp is FTP (RFC 959) with TLS (RFC 4217, RFC 2228) for a server that is
// relayed to another one. It is command-aware all the way: commands and replies are
// lines, which are passed on one command at a time, and never opaque.
//
// TLS and the ports of data connections are ours. The backend is dialled for the first
// command that it has to answer, such as USER. It is asked for a port of its own with
// PASV, or EPSV where its address is of IPv6, for each PASV, EPSV, PORT and EPRT of
// the client's; of its reply the port alone is looked at, never the address (RFC 2577
// §3). The client gets a port of ours, and a codec.Data connects the two:
//
//	client      session                        backend
//	EPSV     ─▶ PASV                        ─▶
//	         ◀─ Data.Listen                 ◀─ 227 (…,p1,p2)
//	RETR f   ─▶ Data.Connect, both are there
//	            RETR f                      ─▶
//	         ◀─ Data.Start                  ◀─ 150
//	         ◀─ once Data is done           ◀─ 226
//
// A transfer that has failed on our side is never reported as complete. While one goes
// on, ABOR and STAT pass, and other commands wait.
package ftp
