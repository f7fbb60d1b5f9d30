package settings

import "sync/atomic"

// Held is the value of a pointer that may not be set yet; then it is the zero value.
func Held[T any](p *atomic.Pointer[T]) (v T) {
	if at := p.Load(); at != nil {
		v = *at
	}
	return v
}
