// Package tickets keeps the keys of TLS session tickets, so that a session begun on
// one node of a fleet resumes on every other, behind any balancer:
//
//	ring, err := tickets.Open(tickets.Options{Keys: "redis://10.0.0.5:6379/0", Rotate: 12 * time.Hour})
//	...
//	ring.Serve("smtp", cfg) // cfg is a *tls.Config; its keys are kept from now on
//
// # Generations
//
// Time is cut into generations of one rotation each: the number of the current one is
// the Unix time divided by the rotation, n. Every generation has a secret that all
// nodes know. New tickets are made with that of n; those by n-2 to n+1 are opened. The
// secret of n+1 is known to all nodes from the start of n, so it becomes the current
// one everywhere by the clock alone, and clocks that differ by less than a rotation
// do no harm: the ticket of a node whose clock is ahead is by a key that all others have.
//
// A ticket made in generation g resumes until the end of g+2: for at least two
// rotations and for less than three. An older one leads to a full handshake, which the
// client does not notice. crypto/tls accepts no ticket that is older than seven days.
//
// The 32 bytes that crypto/tls takes are derived by HKDF-SHA256 (RFC 5869) from the
// secret of the generation and the scope that the caller names, so tickets of one
// scope never resume in another. A scope is all that has to be the same for a session
// to go on: the protocol (golang/go#77217), and whom client certificates are trusted from.
//
// # Where the secrets come from
//
//   - auto: each process makes its own at random. Nothing is shared.
//   - file:PATH: they are derived from a master secret, in a file that the operator
//     brings to all nodes (openssl rand -base64 48 > PATH). A master that replaces
//     another is accepted at once, and makes tickets from the next generation but one on:
//     the nodes have a whole rotation to get it. Restart all nodes to change it at once.
//   - redis://HOST:PORT/DB: the first node that needs a generation makes its secret, and
//     all others take that. Who can read that database can read the sessions of TLS 1.2
//     and pretend to be the server: protect it as the private keys are, and use rediss://
//     on any network that is not trusted.
//
// # What happens when Redis is away
//
// Handshakes never wait for it. A node only makes tickets with a secret that was seen in
// Redis for two polls without a break, by when all others have it too. Without Redis it
// goes on with the last such secret, past its time if it has to, and drops none. A Redis
// that has lost its data gets it back from the nodes at their next poll. Nodes that start
// while it is away use secrets of their own, and publish those to the others as soon as it
// is there.
//
// # Limits
//
// Whoever has the master secret or a generation's can read recorded sessions of TLS 1.2
// in its time; with TLS 1.3 resumed sessions still have their own key exchange. The
// master secret of a file opens all generations, those of the past too. A node that cannot
// reach Redis for a whole rotation while others can does not know their newest tickets:
// full handshakes. Nodes with different rotations share nothing; fleets in one Redis
// share all, unless in different databases of it. Redis Cluster and Sentinel are not spoken.
package tickets
