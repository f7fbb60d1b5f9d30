package session

import "github.com/parleyd/parley/protocol/ident"

// lineage is the public name of a session that has been resumed: the connection with which it began, and the number of
// connections that it has had up to this one. The zero lineage is that of a session that has not been resumed: its name is
// the id of its only connection.
type lineage struct {
	began      ident.ID
	generation uint32
}

// next is the lineage of the heir.
func (p *parked) next() lineage {
	if p.line.generation == 0 {
		return lineage{ident.ID{Worker: p.instance, Place: p.previous}, 2}
	}
	return lineage{p.line.began, p.line.generation + 1}
}

// Name is the public name of the connection's session: the id of the connection with which it began, and the number of
// connections that it has had up to this one. Loop only.
func (c *Conn) Name() (began ident.ID, generation int) {
	if r := c.rare(); r != nil && r.line.generation > 0 {
		return r.line.began, int(r.line.generation)
	}
	return c.ID(), 1
}

// Scope is the scope of an idempotency key of c: its user, or its session; empty without a key. Loop only.
func (c *Conn) Scope(key string) string {
	if key == "" {
		return ""
	}
	if user := c.User(); user != "" {
		return "user " + user
	}
	began, _ := c.Name()
	return "session " + began.String()
}
