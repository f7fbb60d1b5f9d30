package sim

// fleetSession is what a token restores.
//
// Owner: the simulation.
type fleetSession struct {
	of   *fleetConn
	used int
}

// given notes a token that a client was told.
func (t *fleetTruth) given(k *fleetClient, token string) {
	k.person.known = append(k.person.known, token)
	t.sessions[token] = &fleetSession{of: k.truth}
}

// restored checks what a token gave.
func (t *fleetTruth) restored(k *fleetClient, q *fleetRequest, b *body) {
	s := t.sessions[q.token]
	if s == nil {
		t.f.complain("sessions", "%s resumes with a token that nobody was given", k.name)
		return
	}
	t.resumed++
	if s.used++; s.used > 1 {
		t.f.complain("sessions", "%s resumes with a token that was used before", k.name)
	}
	for _, room := range b.Rooms {
		k.truth.announce(room)
	}
}

// spurned checks a token that was refused.
func (t *fleetTruth) spurned(k *fleetClient, q *fleetRequest, code string) {}
