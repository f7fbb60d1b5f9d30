package api

import (
	"slices"
	"strconv"

	"github.com/parleyd/parley/protocol/message"
)

// code names a problem to programs. It is deliberately no error: it is a part of an answer.
type code uint8

const (
	invalidRequest code = iota
	invalidRoom
	unauthenticated
	forbidden
	notFound
	methodNotAllowed
	roomExists
	roomFull
	tooManyRooms
	notInRoom
	noHistory
	idempotencyInProgress
	tooLarge
	unsupportedMediaType
	idempotencyMismatch
	rateLimited
	internal
	overloaded
	unavailable
	incomplete
	codes
)

// problems has the code's name, the status and the title of each problem [RFC 9457 §3.1].
var problems = [codes]struct {
	name   string
	status int
	title  string
}{
	invalidRequest:        {"invalid_request", 400, "the request is not understood"},
	invalidRoom:           {"invalid_room", 400, "a room's name is a string of 1 to 255 bytes without control characters"},
	unauthenticated:       {"unauthenticated", 401, "the request has no good key"},
	forbidden:             {"forbidden", 403, "the key does not allow this"},
	notFound:              {"not_found", 404, "there is nothing of this name"},
	methodNotAllowed:      {"method_not_allowed", 405, "the path is served for another method"},
	roomExists:            {"room_exists", 409, "there is a room of this name"},
	roomFull:              {"room_full", 409, "the room is full"},
	tooManyRooms:          {"too_many_rooms", 409, "the connection is in as many rooms as it may be"},
	notInRoom:             {"not_in_room", 409, "the connection is not in the room"},
	noHistory:             {"no_history", 409, "the room keeps no history"},
	idempotencyInProgress: {"idempotency_in_progress", 409, "the first request with this Idempotency-Key is under way"},
	tooLarge:              {"too_large", 413, "the request is too large"},
	unsupportedMediaType:  {"unsupported_media_type", 415, "the body is not of the type application/json"},
	idempotencyMismatch:   {"idempotency_mismatch", 422, "an earlier request had this Idempotency-Key and another body"},
	rateLimited:           {"rate_limited", 429, "too many failures to authenticate"},
	internal:              {"internal", 500, "the server failed to answer"},
	overloaded:            {"overloaded", 503, "the server is overloaded and has done nothing; try again"},
	unavailable:           {"unavailable", 503, "a part of the server did not answer; try again"},
	incomplete:            {"partial", 503, "the answer would not be complete; try again"},
}

// String is the code's name.
func (c code) String() string { return problems[c].name }

// problem is why a request, or an operation of a batch, was refused or failed.
//
// Owner: one goroutine.
type problem struct {
	code   code
	detail string  // for a person; empty: the title says all
	faults []fault // of the request's fields
	wait   int     // seconds until another try makes sense: for Retry-After, which 429 and 503 have always
	allow  string  // the methods of the path, for 405
}

// fault is a fault of one field [RFC 6901].
type fault struct{ pointer, detail string }

func (p *problem) status() int { return problems[p.code].status }

// retryAfter is the header field's value, empty if there is none.
func (p *problem) retryAfter() string {
	if s := p.status(); s != 429 && s != 503 {
		return ""
	}
	return strconv.Itoa(max(p.wait, 1))
}

// append writes the problem document. request is the request's id.
func (p *problem) append(dst []byte, request string) []byte {
	row := &problems[p.code]
	dst = append(append(dst, `{"type":"urn:parley:`...), row.name...)
	dst = message.AppendString(append(dst, `","title":`...), row.title)
	dst = strconv.AppendInt(append(dst, `,"status":`...), int64(row.status), 10)
	dst = append(append(append(dst, `,"code":"`...), row.name...), '"')
	if p.detail != "" {
		dst = message.AppendString(append(dst, `,"detail":`...), p.detail)
	}
	for i, f := range p.faults {
		if i == 0 {
			dst = append(dst, `,"errors":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = message.AppendString(append(dst, `{"pointer":`...), f.pointer)
		dst = append(message.AppendString(append(dst, `,"detail":`...), f.detail), '}')
	}
	if len(p.faults) > 0 {
		dst = append(dst, ']')
	}
	return append(message.AppendString(append(dst, `,"request":`...), request), '}')
}

// invalid is the problem of a request with faults; nil if there are none. The first fault is the detail.
func invalid(faults []fault) *problem {
	if len(faults) == 0 {
		return nil
	}
	first := faults[0].detail
	if faults[0].pointer != "" {
		first = faults[0].pointer + ": " + first
	}
	return &problem{code: invalidRequest, detail: first, faults: slices.Clip(faults)}
}
