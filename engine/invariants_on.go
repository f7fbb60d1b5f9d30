//go:build invariants

package engine

// rescuing: a test must see each fault of ours.
const rescuing = false

// scribble overwrites bytes that were borrowed, so that whoever kept them is found out. Tests are built
// with it.
func scribble(chunk []byte) {
	for i := range chunk {
		chunk[i] = 0xdb
	}
}
