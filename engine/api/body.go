package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/message"
)

// Requests are read by the scanner of package message: it keeps the JSON of data as it was sent, and sees a name that stands
// twice.

// bodies are buffers for reading.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const (
	bodyKeptMax  = 1 << 20  // a larger buffer is left to the collector
	bodyFirstMax = 64 << 10 // what a client's Content-Length may reserve before the bytes arrive
)

// checkType wants the one media type that bodies have.
func checkType(h http.Header) *problem {
	if coding := h.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return &problem{code: unsupportedMediaType, detail: "send the body without a Content-Encoding"}
	}
	kinds := h.Values("Content-Type")
	if len(kinds) == 1 && kinds[0] == "application/json" {
		return nil
	}
	if len(kinds) == 1 {
		kind, parameters, err := mime.ParseMediaType(kinds[0])
		charset, named := parameters["charset"]
		if err == nil && kind == "application/json" && (len(parameters) == 0 || len(parameters) == 1 && named && strings.EqualFold(charset, "utf-8")) {
			return nil
		}
	}
	return &problem{code: unsupportedMediaType, detail: "send the body with Content-Type: application/json"}
}

// bound is how large a body may be, and the words for a person whose body is larger.
type bound struct {
	bytes int64
	says  string
}

// readBody reads the whole body into a buffer of the pool, which the caller puts back with done.
func readBody(w http.ResponseWriter, r *http.Request, most bound) (buf *bytes.Buffer, p *problem) {
	if r.ContentLength > most.bytes {
		return nil, &problem{code: tooLarge, detail: most.says}
	}
	buf = bodies.Get().(*bytes.Buffer)
	buf.Grow(int(min(max(r.ContentLength, 512), bodyFirstMax)) + bytes.MinRead)
	_, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, most.bytes))
	if err == nil && !frame.ValidUTF8(buf.Bytes()) {
		p = &problem{code: invalidRequest, detail: "the body is not valid UTF-8"}
	}
	var larger *http.MaxBytesError
	switch {
	case err == nil:
	case errors.As(err, &larger):
		p = &problem{code: tooLarge, detail: most.says}
	case errors.Is(err, os.ErrDeadlineExceeded):
		p = &problem{code: invalidRequest, detail: fmt.Sprintf("the body did not arrive in time: %d bytes did", buf.Len())}
	case errors.Is(err, io.ErrUnexpectedEOF):
		p = &problem{code: invalidRequest, detail: fmt.Sprintf("the body is cut: the connection ended after %d bytes", buf.Len())}
	default:
		p = &problem{code: invalidRequest, detail: "the body cannot be read: its chunks are malformed, or the connection failed"}
	}
	if p != nil {
		done(buf)
		return nil, p
	}
	return buf, nil
}

func done(buf *bytes.Buffer) {
	if buf.Cap() <= bodyKeptMax {
		buf.Reset()
		bodies.Put(buf)
	}
}

// field is a member that a request may have. take keeps its value, and returns what is wrong with it, empty for nothing.
type field[T any] struct {
	name string
	take func(into *T, value []byte) string
}

// fields are all members that a request may have, at most 62.
type fields[T any] []field[T]

const (
	faultsMax = 16 // in one problem document
	namesMax  = 64 // bytes of a client's name in a message
)

// object is a JSON object that a request, or a part of it, consists of.
//
// Owner: one goroutine.
type object struct {
	raw   []byte // borrowed
	at    string // its pointer in the body
	named bool   // it is an operation of a batch, or a message: its field "do" was read before
	noted bool   // it is a message: its field "ref" was read before
}

// own is the bit of a field that was read before, and is none of the request's; 0 for others.
func (o *object) own(name []byte) uint64 {
	switch {
	case o.named && string(name) == "do":
		return 1 << 63
	case o.noted && string(name) == "ref":
		return 1 << 62
	}
	return 0
}

// decode fills into from an object. What is borrowed by take is borrowed from the object.
func (list fields[T]) decode(o object, into *T) *problem {
	var seen uint64
	var faults []fault
	say := func(name, detail string) { faults = append(faults, fault{o.at + "/" + escapePointer(name), detail}) }
	code := message.EachMember(o.raw, func(name, value []byte) bool {
		i := list.index(name)
		switch {
		case i < 0 && o.own(name) != 0:
			if seen&o.own(name) != 0 {
				say(string(name), "the field stands twice")
			}
			seen |= o.own(name)
		case i < 0:
			say(clip(name), "there is no such field"+list.suggest(string(name)))
		case seen&(1<<i) != 0:
			say(list[i].name, "the field stands twice")
		default:
			seen |= 1 << i
			if wrong := list[i].take(into, value); wrong != "" {
				say(list[i].name, wrong)
			}
		}
		return len(faults) < faultsMax
	})
	if code != message.OK && len(faults) < faultsMax {
		return malformed(o.raw, o.at)
	}
	return invalid(faults)
}

// hold reports whether every member of an object is one of the fields.
func (list fields[T]) hold(o object) bool {
	all := true
	code := message.EachMember(o.raw, func(name, _ []byte) bool {
		all = list.index(name) >= 0 || o.own(name) != 0
		return all
	})
	return all && code == message.OK
}

func (list fields[T]) index(name []byte) int {
	for i := range list {
		if list[i].name == string(name) {
			return i
		}
	}
	return -1
}

// malformed says where a text is no JSON object.
func malformed(raw []byte, at string) *problem {
	var whole json.RawMessage
	var syntax *json.SyntaxError
	detail := "give one JSON object"
	text := bytes.TrimSpace(raw)
	switch err := json.Unmarshal(raw, &whole); {
	case len(text) == 0:
		detail = "the body is empty: " + detail
	case errors.As(err, &syntax):
		detail = fmt.Sprintf("%s; at byte %d: %v", detail, syntax.Offset, err)
	case err == nil && text[0] != '{':
		detail += ", not " + kindOf(text)
	case err == nil:
		detail = "the JSON is nested deeper than 64, or holds half a surrogate pair"
	}
	return invalid([]fault{{at, detail}})
}

// clip shortens a client's text for a message.
func clip(text []byte) string {
	if len(text) > namesMax {
		return strings.ToValidUTF8(string(text[:namesMax]), "") + "..."
	}
	return string(text)
}

// escapePointer makes a name a part of a pointer [RFC 6901 §3].
func escapePointer(name string) string {
	if !strings.ContainsAny(name, "~/") {
		return name
	}
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// suggest is the known name that a mistyped one is close to, as the end of a sentence.
func (list fields[T]) suggest(name string) string {
	best, least := "", max(len(name)/2, 2)+1
	if len(name) <= namesMax {
		for _, f := range list {
			if d := editDistance(strings.ToLower(name), f.name); d < least {
				best, least = f.name, d
			}
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + strconv.Quote(best) + "?"
}

// editDistance is the least number of bytes to insert, delete or replace.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(cost, row[j]+1, corner+1)
		}
	}
	return row[len(b)]
}

// kindOf names the kind of a JSON value.
func kindOf(value []byte) string {
	switch value[0] {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "a number"
}

// takeText reads a string.
func takeText(into *string, value []byte) (wrong string) {
	text, ok := message.Text(value)
	if !ok {
		return "give a string, not " + kindOf(value)
	}
	*into = text
	return ""
}

// takeShort reads a string of 1 to 64 bytes.
func takeShort(into *string, value []byte) (wrong string) {
	if wrong = takeText(into, value); wrong == "" && (*into == "" || len(*into) > shortBytesMax) {
		wrong = "give a string of 1 to 64 bytes"
	}
	return wrong
}

const shortBytesMax = 64

// takeBool reads true or false.
func takeBool(into *bool, value []byte) (wrong string) {
	if value[0] != 't' && value[0] != 'f' {
		return "give true or false, not " + kindOf(value)
	}
	*into = value[0] == 't'
	return ""
}

// takeTexts reads a list of at most listMax strings.
func takeTexts(into *[]string, value []byte) (wrong string) {
	code := message.EachElement(value, func(element []byte) bool {
		var text string
		if wrong = takeText(&text, element); wrong != "" {
			wrong = fmt.Sprintf("element %d: %s", len(*into), wrong)
			return false
		}
		if *into = append(*into, text); len(*into) > listMax {
			wrong = "a list has at most " + strconv.Itoa(listMax) + " elements"
		}
		return wrong == ""
	})
	if wrong == "" && code != message.OK {
		wrong = "give a list of strings, not " + kindOf(value)
	}
	return wrong
}

const listMax = 1000
