package api

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/parleyd/parley/engine/access"
	"github.com/parleyd/parley/protocol/message"
)

// The parameters of a GET are read as the fields of an object, so that a query and a message on the socket are one thing.

// readRequest is what a GET asks for.
//
// Owner: one goroutine.
type readRequest struct {
	users     []string
	room      string
	id        string
	address   string
	attribute string // NAME:JSON
	match     string // a pattern of rooms
	sort      string
	after     string
	limit     int // 0: not given
	complete  bool
	since     *uint64
	before    *uint64
	epoch     string
}

const (
	limitUsual = 100
	limitMax   = 1000
	usersMax   = 200 // that one request names
)

var readFields = fields[readRequest]{
	{"user", takeNamedUsers},
	{"room", func(q *readRequest, v []byte) string { return takeText(&q.room, v) }},
	{"id", func(q *readRequest, v []byte) string { return takeText(&q.id, v) }},
	{"address", func(q *readRequest, v []byte) string { return takeText(&q.address, v) }},
	{"attribute", func(q *readRequest, v []byte) string { return takeText(&q.attribute, v) }},
	{"match", func(q *readRequest, v []byte) string {
		wrong := takeText(&q.match, v)
		if _, err := access.ParsePattern(q.match); wrong == "" && err != nil {
			wrong = err.Error()
		}
		return wrong
	}},
	{"sort", func(q *readRequest, v []byte) string { return takeText(&q.sort, v) }},
	{"after", func(q *readRequest, v []byte) string { return takeText(&q.after, v) }},
	{"limit", func(q *readRequest, v []byte) string {
		n, err := strconv.ParseUint(string(v), 10, 16)
		if q.limit = int(n); err != nil || n < 1 || n > limitMax {
			return "give a number from 1 to " + strconv.Itoa(limitMax)
		}
		return ""
	}},
	{"since_seq", func(q *readRequest, v []byte) string { return takeSeq(&q.since, v) }},
	{"before_seq", func(q *readRequest, v []byte) string { return takeSeq(&q.before, v) }},
	{"epoch", func(q *readRequest, v []byte) string { return takeEpoch(&q.epoch, v) }},
	{"require", func(q *readRequest, v []byte) string {
		var word string
		wrong := takeText(&word, v)
		if q.complete = word == "complete"; wrong == "" && !q.complete {
			wrong = "give complete, or leave it out"
		}
		return wrong
	}},
}

// takeNamedUsers reads a user, or a list of them.
func takeNamedUsers(q *readRequest, value []byte) (wrong string) {
	if value[0] == '[' {
		wrong = takeUsers(&q.users, value)
	} else {
		wrong = takeUser(&q.users, value)
	}
	if wrong == "" && len(q.users) > usersMax {
		wrong = "name at most " + strconv.Itoa(usersMax) + " users in one request"
	}
	return wrong
}

// parameters are the read fields of these names, and those that all reads have.
func parameters(names ...string) (list fields[readRequest]) {
	for _, f := range readFields {
		if f.name == "require" || slices.Contains(names, f.name) {
			list = append(list, f)
		}
	}
	return list
}

// objectOf makes an object of a query. A parameter that stands twice does so in the object; only users make a list.
func objectOf(query url.Values) ([]byte, *problem) {
	dst := []byte{'{'}
	add := func(name string, value []byte) {
		if len(dst) > 1 {
			dst = append(dst, ',')
		}
		dst = append(append(message.AppendString(dst, name), ':'), value...)
	}
	for name, values := range query {
		if !utf8.ValidString(name + strings.Join(values, "")) {
			return nil, &problem{code: invalidRequest, detail: "the query is not valid UTF-8"}
		}
		if name == "user" && len(values) > 1 {
			list := []byte{'['}
			for i, value := range values {
				if i > 0 {
					list = append(list, ',')
				}
				list = message.AppendString(list, value)
			}
			add(name, append(list, ']'))
			continue
		}
		for _, value := range values {
			if n, err := strconv.ParseUint(value, 10, 64); err == nil && (name == "limit" || name == "since_seq" || name == "before_seq") {
				add(name, strconv.AppendUint(nil, n, 10))
				continue
			}
			add(name, message.AppendString(nil, value))
		}
	}
	return append(dst, '}'), nil
}
