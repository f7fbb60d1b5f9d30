package conformance

import "fmt"

// closeRows is family 7.
func closeRows() []row {
	bad := greek + "\xed\xa0\x80" + after
	all := []row{
		echoes("7.1.1", "7.1.1", "text, then a close", []step{send(fr(opText, hello))}).wants(echoText(hello)),
		closed(named{"7.1.2", "5.5.1", "two closes"}, 1000, closing(1000, ""), fr(opClose, "")),
		closed(named{"7.1.3", "5.5.1", "close, then ping"}, 1000, closing(1000, ""), fr(opPing, "")),
		closed(named{"7.1.4", "5.5.1", "close, then text"}, 1000, closing(1000, ""), fr(opText, hello)),
		closed(named{"7.1.5", "5.5.1", "close between two fragments"}, 1000,
			more(opText, "fragment1"), closing(1000, ""), fr(opContinuation, "fragment2")),
		// Informational in the public suite. Messages before the close must be echoed all the same.
		closed(named{"7.1.6", "5.5.1", "256 KB of text, text, close, ping"}, 1000,
			frame{op: opText, payload: rep(pattern, 256<<10)}, fr(opText, hello), closing(1000, ""), fr(opPing, "")).
			wants(event{text, rep(pattern, 256<<10)}, echoText(hello)).lax(),
		closed(named{"7.3.1", "5.5.1", "close without payload"}, 1000, fr(opClose, "")),
		closed(named{"7.3.2", "5.5.1", "close with payload of one octet"}, 1002, fr(opClose, "a")),
		closed(named{"7.3.3", "5.5.1", "close with a code"}, 1000, closing(1000, "")),
		closed(named{"7.3.4", "5.5.1", "close with a code and a text"}, 1000, closing(1000, hello)),
		closed(named{"7.3.5", "5.5.1", "close with a text of 123 octets"}, 1000, closing(1000, string(rep("*", 123).bytes()))),
		closed(named{"7.3.6", "5.5", "close with a text of 124 octets"}, 1002, closing(1000, string(rep("*", 124).bytes()))),
		closed(named{"7.5.1", "5.5.1", "close with a text that is no UTF-8"}, 1007, closing(1000, bad)).codes(1002, 1007),
	}
	all[6].end.bare = true // 7.3.1: there is no code to echo
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		all = append(all, closed(named{fmt.Sprintf("7.7.%d", i+1), "7.4.1", fmt.Sprintf("close with valid code %d", code)},
			1000, closing(code, "")).codes(1000, code))
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		all = append(all, closed(named{fmt.Sprintf("7.9.%d", i+1), "7.4.2", fmt.Sprintf("close with invalid code %d", code)},
			1002, closing(code, "")))
	}
	// Informational in the public suite: the RFC defines no code above 4999. Only an echo of it fails here, since the RFC
	// does not allow an endpoint to send one.
	for i, code := range []int{5000, 65535} {
		all = append(all, closed(named{fmt.Sprintf("7.13.%d", i+1), "7.4.2", fmt.Sprintf("close with code %d", code)},
			1002, closing(code, "")).codes(1000, 1002))
	}
	return all
}

// named has the number, clause and title of a row.
type named struct{ number, clause, title string }

// closed is a row in which our close is among the frames.
func closed(name named, code int, frames ...frame) row {
	return row{number: name.number, clause: name.clause, title: name.title, steps: []step{send(frames...)}, end: ending{codes: []int{code}}}
}
