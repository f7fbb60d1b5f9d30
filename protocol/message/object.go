package message

// Readers of JSON that need more than the envelope. They check the grammar as [Route] does, and decode nothing but names and
// strings.

// EachMember calls take for the members of an object, in order, until take returns false. name is unescaped; value is JSON
// as it was sent. Both are borrowed, and name is only valid until take returns. It returns OK if the whole text is one
// object, nested at most 64 deep; InvalidJSON if the text does not begin as an object; InvalidMessage if the text is broken
// or take returned false. object must be valid UTF-8.
func EachMember(object []byte, take func(name, value []byte) bool) Code {
	var e Envelope
	i, more := opened(object, '{')
	if i < 0 {
		return InvalidJSON
	}
	for more {
		if i >= len(object) || object[i] != '"' {
			return InvalidMessage
		}
		end, escaped := scanString(object, i+1)
		if end < 0 {
			return InvalidMessage
		}
		name := object[i+1 : end-1]
		if escaped {
			e.scratch = e.scratch[:0]
			name = e.unescape(name)
		}
		i = skipSpace(object, end)
		if i >= len(object) || object[i] != ':' {
			return InvalidMessage
		}
		i = skipSpace(object, i+1)
		if end = skipValue(object, i); end < 0 || !take(name, object[i:end]) {
			return InvalidMessage
		}
		if i, more = next(object, end, '}'); i < 0 {
			return InvalidMessage
		}
	}
	return whole(object, i)
}

// EachElement is EachMember for the elements of an array.
func EachElement(array []byte, take func(value []byte) bool) Code {
	i, more := opened(array, '[')
	if i < 0 {
		return InvalidJSON
	}
	for more {
		end := skipValue(array, i)
		if end < 0 || !take(array[i:end]) {
			return InvalidMessage
		}
		if i, more = next(array, end, ']'); i < 0 {
			return InvalidMessage
		}
	}
	return whole(array, i)
}

// opened returns the index behind an opening bracket, and whether anything stands in the brackets. -1: the text begins in
// another way.
func opened(b []byte, bracket byte) (i int, more bool) {
	i = skipSpace(b, 0)
	if i == len(b) || b[i] != bracket {
		return -1, false
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == bracket+2 { // the closing bracket, in ASCII
		return i + 1, false
	}
	return i, true
}

// next goes from behind a value to the following one, or behind the closing bracket. -1: neither stands there.
func next(b []byte, i int, closing byte) (at int, more bool) {
	i = skipSpace(b, i)
	switch {
	case i < len(b) && b[i] == ',':
		return skipSpace(b, i+1), true
	case i < len(b) && b[i] == closing:
		return i + 1, false
	}
	return -1, false
}

func whole(b []byte, i int) Code {
	if skipSpace(b, i) != len(b) {
		return InvalidMessage
	}
	return OK
}

// Text returns the content of a JSON string that was checked before; ok is false for any other value.
func Text(value []byte) (text string, ok bool) {
	var e Envelope
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	return string(e.text(value)), true
}

// Sendable returns OK if the server may send a text as a message: it is one object with a string as its type, and has no key
// of the envelope twice. The text must be valid UTF-8.
func Sendable(text []byte) Code {
	var seen uint16
	typed := false
	code := EachMember(text, func(name, value []byte) bool {
		key := keyOf(name)
		fresh := seen&key == 0
		seen |= key
		typed = typed || key == keyType && value[0] == '"'
		return fresh
	})
	if code == OK && !typed {
		return InvalidMessage
	}
	return code
}
