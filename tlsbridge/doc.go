// Package tlsbridge puts TLS on an event-loop connection with unmodified crypto/tls.
package tlsbridge
