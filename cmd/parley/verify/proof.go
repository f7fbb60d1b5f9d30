package verify

import "slices"

// Some claims hold only if connections were alive at a moment: five members of a room for four are one too many, but
// not if the server had ended one of them a moment ago and its end has not been read yet. Such a claim is kept as a
// suspicion. Each connection concerned is asked something; an answer proves that it was alive when it was asked. When
// all have proved it, the claim is a finding; when one of them ends first, it is dropped.

// suspicion is a claim that waits for proof.
//
// Owner: the checker.
type suspicion struct {
	kind  string
	room  *room
	conns []*conn
	text  string
	evt   uint64
}

// suspectsMax bounds the claims that wait: a server that breaks more is convicted by these.
const suspectsMax = 64

// suspect keeps a claim, and asks for proof.
func (k *checker) suspect(kind string, r *room, conns []*conn, text string) {
	if len(k.suspicions) >= suspectsMax {
		return
	}
	k.evt++
	k.suspicions = append(k.suspicions, suspicion{kind: kind, room: r, conns: conns, text: text, evt: k.evt})
	for _, c := range conns {
		c.ping()
	}
}

// judgeSuspicions decides those that can be decided.
func (k *checker) judgeSuspicions() {
	k.suspicions = slices.DeleteFunc(k.suspicions, func(s suspicion) bool {
		proved := true
		for _, c := range s.conns {
			if c.proved > s.evt {
				continue
			}
			if c.phase == ended || c.mode != lively {
				return true
			}
			proved = false
		}
		if proved {
			k.found(s.kind, s.room, s.conns[:min(len(s.conns), suspectsTraced)], s.text)
		}
		return proved
	})
}

// suspectsTraced bounds the connections whose steps are shown.
const suspectsTraced = 8
