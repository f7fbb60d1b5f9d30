package message

// findRef looks for the ref of a message that is refused, also behind the fault. The ref must be a key of the outermost
// object and have a valid value. findRef follows strings and brackets only.
func (e *Envelope) findRef(b []byte) {
	depth, keyNext := 0, false
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			depth++
			keyNext = depth == 1
		case '}', ']':
			if depth--; depth <= 0 {
				return
			}
		case ',':
			keyNext = depth == 1
		case '"':
			end := stringEnd(b, i+1)
			if end < 0 {
				return
			}
			if keyNext && e.isRef(b[i:end]) {
				e.takeRef(b, end)
				return
			}
			keyNext = false
			i = end - 1
		}
	}
}

// stringEnd is the index behind the quote that ends a string, which need not be valid; -1 for none.
func stringEnd(b []byte, i int) int {
	for ; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// isRef reports whether a string in quotes is "ref".
func (e *Envelope) isRef(quoted []byte) bool {
	end, escaped := scanString(quoted, 1)
	if end != len(quoted) {
		return false
	}
	name := quoted[1 : end-1]
	if escaped {
		name = e.unescape(name)
	}
	return keyOf(name) == keyRef
}

// takeRef takes the value behind the key that ends at i, if it can be a ref.
func (e *Envelope) takeRef(b []byte, i int) {
	i = skipSpace(b, i)
	if i >= len(b) || b[i] != ':' {
		return
	}
	i = skipSpace(b, i+1)
	end := skipValue(b, i)
	if end < 0 {
		return
	}
	if after := skipSpace(b, end); after < len(b) && (b[after] == ',' || b[after] == '}') && e.refValid(b[i:end]) {
		e.Ref = b[i:end]
	}
}
