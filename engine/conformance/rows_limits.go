package conformance

import "fmt"

// limitRows is families 9.1 to 9.6 and 10.
func limitRows() []row {
	var all []row
	kinds := []struct {
		kind kind
		op   byte
		unit string
	}{{text, opText, pattern}, {binaryMessage, opBinary, patternB}}
	for i, k := range kinds {
		for j, kilobytes := range []int{64, 256, 1 << 10, 4 << 10, 8 << 10, 16 << 10} {
			b := rep(k.unit, kilobytes<<10)
			all = append(all, echoes(fmt.Sprintf("9.%d.%d", i+1, j+1), "5.2", fmt.Sprintf("%v of %d KB", k.kind, kilobytes),
				[]step{send(frame{op: k.op, payload: b})}).wants(event{k.kind, b}))
		}
	}
	for i, k := range kinds {
		for j := range 9 {
			b, size := rep(k.unit, 4<<20), 64<<(2*j)
			all = append(all, echoes(fmt.Sprintf("9.%d.%d", i+3, j+1), "5.4",
				fmt.Sprintf("%v of 4 MB in fragments of %d", k.kind, size),
				[]step{pieces(k.op, b, size)}).wants(event{k.kind, b}))
		}
	}
	for i, k := range kinds {
		for j := range 6 {
			b, chop := rep(k.unit, 1<<20), 64<<j
			all = append(all, echoes(fmt.Sprintf("9.%d.%d", i+5, j+1), "5.2", fmt.Sprintf("%v of 1 MB in chops of %d", k.kind, chop),
				[]step{chopped(chop, frame{op: k.op, payload: b})}).wants(event{k.kind, b}))
		}
	}
	b := rep("*", 65536)
	return append(all, echoes("10.1.1", "5.4", "text of 64 KB in fragments of 1300",
		[]step{pieces(opText, b, 1300)}).wants(event{text, b}))
}

// roundTripRows is families 9.7 and 9.8. No time is measured: of a thousand messages in lockstep, each would hang on a byte
// that the server keeps back.
func roundTripRows() []row {
	var all []row
	for i, source := range []*corpus{stars, octetsFE} {
		for j, size := range []int{0, 16, 64, 256, 1 << 10, 4 << 10} {
			r := echoes(fmt.Sprintf("9.%d.%d", i+7, j+1), "5.6",
				fmt.Sprintf("1000 %v messages of %d octets, one after the other", source.kind, size), nil)
			r.rounds = &rounds{count: 1000, size: size, corpus: source}
			all = append(all, r)
		}
	}
	return all
}
