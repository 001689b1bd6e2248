//go:build race

package tlsbridge

// The race detector makes sync.Pool drop things at random.
func init() { raceDetector = true }
