//go:build !linux

package budget

// Usable is the memory that the server may use: it is not known here, so that there is no budget unless one is set.
func Usable() int64 { return 0 }
