package api

import (
	"bytes"
	"strconv"
	"strings"
	"sync"

	"github.com/parleyd/parley/protocol/message"
)

// batchRequest is the body of /v1/batch. Its slices are borrowed from the body.
type batchRequest struct {
	operations []byte
	stop       bool
}

var batchFields = fields[batchRequest]{
	{"operations", func(b *batchRequest, v []byte) string {
		if b.operations = v; v[0] != '[' {
			return "give a list of operations, not " + kindOf(v)
		}
		return ""
	}},
	{"stop", func(b *batchRequest, v []byte) string { return takeBool(&b.stop, v) }},
}

const (
	batchBytesMax      = 4 << 20
	batchOperationsMax = 1000
)

// batch carries out operations in their order. The place of an operation that failed has its problem.
func batch(s *Server, c *call) ([]byte, *problem) {
	var b batchRequest
	if wrong := batchFields.decode(c.object, &b); wrong != nil {
		return nil, wrong
	}
	if b.operations == nil {
		return nil, invalid([]fault{{"/operations", "give a list of operations"}})
	}
	var operations [][]byte
	message.EachElement(b.operations, func(raw []byte) bool {
		operations = append(operations, raw)
		return len(operations) <= batchOperationsMax
	})
	if len(operations) > batchOperationsMax {
		return nil, &problem{code: tooLarge, detail: "a batch has at most " + strconv.Itoa(batchOperationsMax) + " operations: send several"}
	}
	results, failed := make([][]byte, len(operations)), false
	var sent []*[]byte
	places := operationPlaces()
	one := *c // of all operations: one that was carried out needs it no more
	for i, raw := range operations {
		if failed && b.stop {
			results[i] = []byte(`{"skipped":true}`)
			continue
		}
		one.sent = false
		one.object = object{raw: raw, at: places[i], named: true}
		result, wrong := s.operate(&one)
		if wrong != nil {
			failed = true
			result = wrong.append(nil, c.request)
		}
		results[i] = result
		if one.sent {
			sent = append(sent, &results[i])
		}
	}
	if len(sent) > 0 {
		s.settle(c, sent...)
	}
	return append(append([]byte(`{"results":[`), bytes.Join(results, []byte{','})...), "]}"...), nil
}

// operationPlaces are the pointers of the operations of a batch.
var operationPlaces = sync.OnceValue(func() []string {
	list := make([]string, batchOperationsMax)
	for i := range list {
		list[i] = "/operations/" + strconv.Itoa(i)
	}
	return list
})

// operate carries out one operation of a batch.
func (s *Server) operate(c *call) (_ []byte, wrong *problem) {
	if _, c.route, wrong = s.batched.of(c); wrong != nil {
		return nil, wrong
	}
	return s.carryOut(c)
}

// operations are those that a batch, or a message on a socket, may name.
//
// Owner: immutable after New.
type operations struct {
	names  []string
	routes map[string]*route // nil for those that are about the socket itself
}

func (o *operations) add(name string, r *route) {
	if o.routes == nil {
		o.routes = map[string]*route{}
	}
	o.names = append(o.names, name)
	o.routes[name] = r
}

// of finds the operation that an object names; name counts where there is no route. It reads no further than that: decode sees
// what is wrong behind it.
func (o *operations) of(c *call) (name string, r *route, _ *problem) {
	var value []byte
	if code := message.EachMember(c.raw, func(field, v []byte) bool {
		if string(field) == "do" {
			value = v
		}
		return value == nil
	}); value == nil && code != message.OK {
		return "", nil, malformed(c.raw, c.at)
	}
	refuse := func(why string) (string, *route, *problem) { return "", nil, invalid([]fault{{c.at + "/do", why}}) }
	if value == nil {
		return refuse("name the operation: one of " + strings.Join(o.names, ", "))
	}
	if r := o.routes[string(bytes.Trim(value, `"`))]; r != nil { // without an escape, and so without an allocation
		return "", r, nil
	}
	if wrong := takeText(&name, value); wrong != "" {
		return refuse(wrong)
	}
	r, known := o.routes[name]
	if !known {
		return refuse("there is no operation " + strconv.Quote(clip([]byte(name))) + ": take one of " + strings.Join(o.names, ", "))
	}
	return name, r, nil
}
