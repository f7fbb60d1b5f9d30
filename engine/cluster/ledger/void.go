package ledger

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// Void deletes sessions by their values: a backend ends the sessions of a user. It reads all sessions, page by page, and keeps
// the keys of those that match; then it deletes each at the revision that it reads once more, some at a time. A session that
// is claimed is deleted when its claim has been undone; if the claim succeeds, the session is gone. A session with a connection
// is its worker's: that has deleted it, or is about to, or it has died and this worker does not know that yet.

const (
	voidsMax  = 64                    // deletions on their way
	voidAgain = 50 * time.Millisecond // until a session that may not be deleted yet is looked at again
	claimsMax = 100                   // looks at one claimed session; a claim is decided in less time
	livingMax = 20                    // looks at one session whose worker lives: all know of a death in less time
)

// voiding is one call of Void.
//
// Owner: the ledger's goroutine.
type voiding struct {
	s       *Sessions
	match   func(value []byte) bool
	keys    []string // to be deleted
	running int
	err     error // of the first deletion that failed
	promise *promise
}

// Void deletes the sessions that have no connection and whose values match. value is borrowed, and match runs on the ledger's
// goroutine. After ErrAway the ledger goes on. Any goroutine.
func (s *Sessions) Void(match func(value []byte) bool, done func(error)) error {
	return s.l.accept(func() {
		v := &voiding{s: s, match: match, promise: s.l.promise(done)}
		s.l.scan(sessionBucket, 1, v.see, v.next)
	})
}

// see notes a session that is to be deleted.
func (v *voiding) see(key string, f found) {
	if _, ends := v.ends(f); ends {
		v.keys = append(v.keys, key)
	}
}

// ends reports whether a record is a session to be deleted, now or, if it is claimed, later.
func (v *voiding) ends(f found) (isClaimed, ends bool) {
	if f.payload == nil {
		return false, false
	}
	rec, err := decodeSession(f.payload)
	if err != nil || !v.match(rec.value) {
		return false, false // the origin, a mark, or a session of another version
	}
	return rec.state == claimed, true
}

// next begins deletions, and ends the call after the last one.
func (v *voiding) next() {
	for len(v.keys) > 0 && v.running < voidsMax {
		key := v.keys[0]
		v.keys = v.keys[1:]
		v.running++
		v.look(key, 0)
	}
	if v.running == 0 {
		v.promise.keep(v.err)
	}
}

// look reads a session and deletes it. tries counts the earlier looks.
func (v *voiding) look(key string, tries int) {
	l := v.s.l
	l.get(sessionBucket, key, func(f found) {
		isClaimed, ends := v.ends(f)
		alive := ends && v.alive(key, f)
		switch {
		case !ends, alive && tries >= livingMax:
			v.end(nil)
		case isClaimed && tries >= claimsMax:
			v.end(ErrClaimed)
		case isClaimed, alive:
			l.after(voidAgain, func() { v.look(key, tries+1) })
		default:
			l.set(&set{bucket: sessionBucket, key: key, expect: f.revision, done: func(_ uint64, err error) {
				if err == errConflict {
					v.look(key, tries)
					return
				}
				v.end(err)
			}})
		}
	})
}

// alive reports whether a session has a connection: its worker ends it.
func (v *voiding) alive(key string, f found) bool {
	rec, err := decodeSession(f.payload)
	if err != nil || rec.state != Live {
		return false
	}
	instance, _, _ := strings.Cut(key, ".")
	n, err := strconv.ParseUint(instance, 10, 16)
	return err == nil && !v.s.l.life.isDead(worker{rec.owner, ident.Worker(n)})
}

func (v *voiding) end(err error) {
	if err != nil && v.err == nil {
		v.err = fmt.Errorf("delete session: %w", err)
	}
	v.running--
	v.next()
}
