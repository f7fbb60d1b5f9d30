package conformance

import "fmt"

// deflateSizes are the 18 message sizes of each family 12.* and 13.*, with the fragment size.
var deflateSizes = [...]struct{ size, fragment int }{
	{16, 0}, {64, 0}, {256, 0}, {1 << 10, 0}, {4 << 10, 0}, {8 << 10, 0}, {16 << 10, 0}, {32 << 10, 0}, {64 << 10, 0}, {128 << 10, 0},
	{8 << 10, 256}, {16 << 10, 256}, {32 << 10, 256}, {64 << 10, 256}, {128 << 10, 256},
	{128 << 10, 1 << 10}, {128 << 10, 4 << 10}, {128 << 10, 32 << 10},
}

const plainOffer = "permessage-deflate; client_no_context_takeover; client_max_window_bits"

// negotiated has the offer of each family 13.*, and its clause.
var negotiated = [...]struct{ clause, offer string }{
	{"7.1", plainOffer},
	{"7.1.1.1", plainOffer + "; server_no_context_takeover"},
	{"7.1.2.1", plainOffer + "; server_max_window_bits=9"},
	{"7.1.2.1", plainOffer + "; server_max_window_bits=15"},
	{"7.1.2.1", plainOffer + "; server_no_context_takeover; server_max_window_bits=9"},
	{"7.1.2.1", plainOffer + "; server_no_context_takeover; server_max_window_bits=15"},
	{"5.1", plainOffer + "; server_no_context_takeover; server_max_window_bits=9, " +
		plainOffer + "; server_no_context_takeover, " + plainOffer},
}

// compressionRows is family 12: five kinds of content, the plain offer.
func compressionRows() []row {
	var all []row
	for i, source := range []*corpus{jsonCorpus, pictureCorpus, dramaCorpus, pageCorpus, paperCorpus} {
		all = append(all, deflateRows(fmt.Sprintf("12.%d", i+1), "7.2", plainOffer, source)...)
	}
	return all
}

// negotiationRows is family 13: seven offers, JSON.
func negotiationRows() []row {
	var all []row
	for i, n := range negotiated {
		all = append(all, deflateRows(fmt.Sprintf("13.%d", i+1), n.clause, n.offer, jsonCorpus)...)
	}
	return all
}

func deflateRows(family, clause, offer string, source *corpus) []row {
	var all []row
	for i, s := range deflateSizes {
		title := fmt.Sprintf("messages of %d out of %s", s.size, source.title)
		if s.fragment > 0 {
			title += fmt.Sprintf(" in fragments of %d", s.fragment)
		}
		r := echoes(fmt.Sprintf("%s.%d", family, i+1), "7692 "+clause, title, nil).offers(offer)
		r.rounds = &rounds{count: 1000, size: s.size, corpus: source, fragment: s.fragment}
		all = append(all, r)
	}
	return all
}
