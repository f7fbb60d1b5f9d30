package rooms

// What a room knows of its members on other workers: how many each has, as that worker said last.

// Away is the number of members on other workers, as far as is known. Any goroutine.
func (r *Room) Away() int { return int(r.away.Load()) }

// SetAway notes how many members another worker has. Any goroutine.
func (r *Room) SetAway(instance uint16, n int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away.Add(n - r.counts[instance])
	switch {
	case n == 0:
		delete(r.counts, instance)
	case r.counts == nil:
		r.counts = map[uint16]int32{instance: n}
	default:
		r.counts[instance] = n
	}
}

// SetCounted marks a room whose count is to be told to others, and reports whether this call did. Any goroutine.
func (r *Room) SetCounted(counted bool) bool { return r.counted.CompareAndSwap(!counted, counted) }

// Introduce reports whether the room is new to other workers, once. Any goroutine.
func (r *Room) Introduce() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.introduced
	r.introduced = true
	return !was
}

// Reintroduce makes it new to them again. Any goroutine.
func (r *Room) Reintroduce() {
	r.mu.Lock()
	r.introduced = false
	r.mu.Unlock()
}
