package verify

import "slices"

// Some faults are faults only if connections were alive at a moment: five members of a room for four are one too many, but
// not if the server had ended one of them a moment ago and its end has not been read yet. Such a fault is kept as a
// suspicion. The checker sends a ping on each connection concerned; the answer proves that it was alive at the time. When
// all have proved it, the suspicion becomes a finding. If one of them ends first, it is dropped.

// suspicion is a fault that waits for proof.
//
// Owner: the checker.
type suspicion struct {
	kind  string
	room  *room
	conns []*conn
	text  string
	evt   uint64
}

// suspectsMax bounds the suspicions that wait: further ones would add no evidence.
const suspectsMax = 64

// suspect keeps a suspicion, and asks for proof.
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

// judgeSuspicions decides the suspicions whose connections have answered or ended.
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
