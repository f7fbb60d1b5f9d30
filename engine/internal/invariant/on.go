//go:build invariants

package invariant

// On says whether this build checks what must hold.
const On = true

// Scribble overwrites borrowed bytes when the loan ends, so that a test finds code that has kept them.
func Scribble(chunk []byte) {
	for i := range chunk {
		chunk[i] = 0xdb
	}
}
