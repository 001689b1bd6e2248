package load

import "time"

// upgrades is mode Upgrade.
func (r *run) upgrades() {
	defer r.start()()
	each(r.o.Connections, func(int) { r.upgrading() })
}

// upgrading upgrades until there are no more slots.
func (r *run) upgrading() {
	in := new(input)
	for {
		due, ok := r.slot()
		if !ok {
			return
		}
		at, err := r.upgrade(in)
		r.note(at.Sub(due), err)
	}
}

// upgrade is one session from the connection to the reply to QUIT, or
// what failed, which was there at.
func (r *run) upgrade(in *input) (at time.Time, err error) {
	c, err := r.dial(time.Now().Add(r.o.Timeout), in)
	if err != nil {
		return time.Now(), err
	}
	if err := c.open(); err != nil {
		c.close()
		return time.Now(), err
	}
	return c.quit()
}
