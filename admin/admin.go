// Package admin serves what an operator looks at: metrics, health, profiles and a
// status page. It has an address of its own, which is not for the world: there is no
// password.
//
// Nothing in here waits for an event loop or makes one wait: what is shown is read
// from counters, a few times a second at most, no matter how many ask for it.
package admin
