package engine

import "golang.org/x/sys/unix"

// sendMore keeps what is sent until more follows: here a FIN.
const sendMore = unix.MSG_MORE
