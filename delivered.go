package main

import (
	"sync/atomic"

	"starttlsd/codec/smtp"
)

// delivered counts the messages of a listener.
type delivered struct{ stored, failed atomic.Uint64 }

// counted is b with its messages counted under a listener's name.
func (d *daemon) counted(name string, b smtp.Backend) smtp.Backend {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.deliveries[name]
	if !ok {
		n = new(delivered)
		d.deliveries[name] = n
	}
	return countingBackend{b, n}
}

type countingBackend struct {
	smtp.Backend
	n *delivered
}

func (b countingBackend) Begin(env *smtp.Envelope) (smtp.Message, error) {
	m, err := b.Backend.Begin(env)
	if err != nil {
		b.n.failed.Add(1)
		return nil, err
	}
	return countingMessage{m, b.n}, nil
}

type countingMessage struct {
	smtp.Message
	n *delivered
}

func (m countingMessage) Commit() error {
	err := m.Message.Commit()
	if err != nil {
		m.n.failed.Add(1)
	} else {
		m.n.stored.Add(1)
	}
	return err
}
