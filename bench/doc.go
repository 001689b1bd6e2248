// Package bench measures starttlsd beside the plain way to write the same server
// in Go, with the same sessions: go test -bench=. ./bench
package bench
