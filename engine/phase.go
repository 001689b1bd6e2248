package engine

import "fmt"

// layer is what the bytes on the wire are.
type layer uint8

const (
	plain     layer = iota // commands in clear. Next: upgrading
	upgrading              // the go-ahead is out: nothing but TLS from here. Next: secure
	secure                 // commands under TLS. Next: none; the end of TLS is the end of the connection
)

var layerNames = [...]string{"plain", "upgrading", "secure"}

func (l layer) String() string { return layerNames[l] }

// setLayer is the only place where a connection's layer changes. Owner only.
func (c *conn) setLayer(next layer) {
	if next != c.layer+1 {
		panic(fmt.Sprintf("engine: layer %v -> %v", c.layer, next))
	}
	c.lst.stats.layers[c.layer].Add(-1)
	c.lst.stats.layers[next].Add(1)
	c.layer = next
}

// holder is who may touch a connection: its event loop, or one goroutine.
type holder uint32

const (
	returning holder = iota // with a goroutine, on its way to the loop; so also a new connection
	onLoop                  // with its event loop
	leaving                 // with its event loop, which is about to let it go
	lent                    // with a goroutine, as a blocking stream
	closing                 // our side is shut down; what still comes in is discarded
	closed                  // gone; nobody touches it
)

var holderNames = [...]string{"returning", "loop", "leaving", "lent", "closing", "closed"}

func (h holder) String() string { return holderNames[h] }

// successors are the legal next holders of each.
var successors = [...][]holder{
	returning: {onLoop, closed},
	onLoop:    {leaving, closing, closed},
	leaving:   {lent, closed},
	lent:      {returning, closing, closed},
	closing:   {closed},
	closed:    {},
}

// setHolder is the only place where a connection's holder changes. Owner only;
// it is atomic because a wake-up on the loop looks at connections it may not own.
func (c *conn) setHolder(next holder) {
	now := holder(c.holder.Load())
	for _, h := range successors[now] {
		if h == next {
			c.holder.Store(uint32(next))
			return
		}
	}
	panic(fmt.Sprintf("engine: holder %v -> %v", now, next))
}

func (c *conn) heldBy() holder { return holder(c.holder.Load()) }

// move is what the work just done has decided about the connection's whereabouts.
type move uint8

const (
	stay move = iota // on the loop, unless output has to drain first
	lend             // the session's next step may wait
	dial             // the session wants its backend
	bye              // say what is left to say, and close
)
