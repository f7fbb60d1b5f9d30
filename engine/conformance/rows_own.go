package conformance

import "encoding/binary"

// ownFramingRows is X.1 and X.2: questions about RFC 6455 that the public suite does not ask.
func ownFramingRows() []row {
	// bare sends octets as they are: a frame without a mask, or with a length that is not minimal.
	bare := func(octets ...byte) []step { return []step{raw(octets...)} }
	wide := func(length uint64, payload int) []step {
		octets := binary.BigEndian.AppendUint64([]byte{0x80 | opBinary, 0x80 | 127}, length)
		octets = append(octets, maskKey[:]...)
		return []step{raw(append(octets, make([]byte, payload)...)...)}
	}
	return []row{
		fails("X.1.1", "5.1", "unmasked text", bare(0x81, 2, 'h', 'i')),
		fails("X.1.2", "5.1", "unmasked ping", bare(0x89, 0)),
		fails("X.1.3", "5.1", "unmasked close", bare(0x88, 2, 0x03, 0xe8)),
		fails("X.1.4", "5.2", "length 5 in 16 bits", bare(0x82, 0xfe, 0, 5, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o')),
		fails("X.1.5", "5.2", "length 126 in 64 bits", wide(126, 126)),
		fails("X.1.6", "5.2", "length with the highest bit set", wide(1<<63|5, 5)).codes(1002, 1009),
		fails("X.1.7", "5.2", "length of 4 EB, nothing behind it", wide(1<<62, 0)).codes(1009),
		// A server that waits for the payload before it looks at the header fails by the deadline.
		fails("X.1.8", "5.5", "the first two octets of a ping of 65535", bare(0x89, 0xfe)),
		fails("X.1.9", "5.5", "the first two octets of a ping with FIN=0", bare(0x09, 0x85)),
		manyFragments("X.1.10"),
		fails("X.2.1", "7.4.1", "close with code 1015", []step{send(closing(1015, ""))}),
		fails("X.2.2", "5.5", "close with FIN=0", []step{send(more(opClose, closeBody(1000, "")))}),
		fails("X.2.3", "5.5.1", "close between two fragments whose first is no UTF-8",
			[]step{send(more(opText, "\xff"), closing(1000, ""))}).codes(1007),
		fails("X.2.4", "5.5.1", "text, ping, text, close in one write: all is answered",
			[]step{send(fr(opText, "a"), fr(opPing, "b"), fr(opText, "c"), closing(1001, "bye"))}).
			wants(echoText("a"), echoPong("b"), echoText("c")).codes(1000, 1001),
	}
}

// manyFragments is a text in 600 fragments of one octet with a ping after every one: 600 pongs, then the text.
func manyFragments(number string) row {
	const fragments = 600
	var frames []frame
	var want []event
	b := rep("fragment", fragments)
	for i, octet := range b.bytes() {
		f := frame{op: opContinuation, more: i < fragments-1, payload: lit(string(octet))}
		if i == 0 {
			f.op = opText
		}
		frames = append(frames, f)
		if f.more {
			frames, want = append(frames, fr(opPing, string(octet))), append(want, echoPong(string(octet)))
		}
	}
	return echoes(number, "5.4", "600 fragments of one octet, a ping after each", []step{send(frames...)}).
		wants(append(want, event{text, b})...)
}

// ownDeflateRows is X.3: rare cases of RFC 7692. The compressed octets are those of its examples (§7.2.3) where there are
// some.
func ownDeflateRows() []row {
	const (
		helloZ  = "\xf2\x48\xcd\xc9\xc9\x07\x00"                         // "Hello", one block
		againZ  = "\xf2\x00\x11\x00\x00"                                 // "Hello" by reference to the one before
		storedZ = "\x00\x05\x00\xfa\xffHello\x00"                        // a stored block
		finalZ  = "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"                     // BFINAL is 1
		twoZ    = "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00" // two blocks
		badZ    = "\x07\xff\xff\xff"                                     // a block of the reserved type
		noUTF8Z = "\x00\x03\x00\xfc\xff\xed\xa0\x80\x00"                 // a surrogate, stored
	)
	z := func(payload string) frame { return rsv(rsv1, opText, payload) }
	echo := func(number, clause, title string, frames ...frame) row {
		return echoes(number, "7692 "+clause, title, []step{send(frames...)}).offers(plainOffer).wants(echoText("Hello"))
	}
	refuse := func(number, clause, title string, frames ...frame) row {
		return fails(number, "7692 "+clause, title, []step{send(frames...)}).offers(plainOffer)
	}
	declined := func(number, clause, title, offer string) row {
		r := echoes(number, "7692 "+clause, title, []step{send(fr(opText, hello))}).offers(offer).wants(echoText(hello))
		r.decline = true
		return r
	}
	opened := z(helloZ[:3])
	opened.more = true
	squeezed := echoes("X.3.17", "7692 7.2.1", "what shrinks comes back shrunk", nil).offers(plainOffer)
	squeezed.rounds, squeezed.shrinks = &rounds{count: 4, size: 16 << 10, corpus: pageCorpus}, true
	return []row{
		refuse("X.3.1", "6.1", "RSV1 on a continuation", opened, rsv(rsv1, opContinuation, helloZ[3:])),
		refuse("X.3.2", "6.1", "RSV1 on a ping", rsv(rsv1, opPing, "")),
		refuse("X.3.3", "6", "RSV2 beside RSV1", rsv(rsv1|2, opText, helloZ)),
		refuse("X.3.4", "6", "RSV3 alone", rsv(1, opText, hello)),
		refuse("X.3.5", "7.2.2", "a block of no known type", z(badZ)).codes(1002, 1007),
		refuse("X.3.6", "7.2.2", "a compressed surrogate", z(noUTF8Z)).codes(1007),
		refuse("X.3.7", "7.2.2", "a reference to before the first message", z(againZ)).codes(1002, 1007),
		echo("X.3.8", "7.2.3.1", "one block", z(helloZ)),
		echo("X.3.9", "7.2.3.1", "one block in two fragments, a ping between", opened, fr(opPing, "!"), fr(opContinuation, helloZ[3:])).
			wants(echoPong("!"), echoText("Hello")),
		echo("X.3.10", "7.2.3.2", "twice, the second by reference to the first", z(helloZ), z(againZ)).
			wants(echoText("Hello"), echoText("Hello")).refersBack(),
		echo("X.3.11", "6", "by reference to the one before the last, which was not compressed", z(helloZ), fr(opText, hello), z(againZ)).
			wants(echoText("Hello"), echoText(hello), echoText("Hello")).refersBack(),
		echo("X.3.12", "7.2.3.3", "a stored block", z(storedZ)),
		echo("X.3.13", "7.2.3.4", "a final block, then another message", z(finalZ), z(helloZ)).
			wants(echoText("Hello"), echoText("Hello")),
		echo("X.3.14", "7.2.3.5", "two blocks", z(twoZ)),
		echo("X.3.15", "7.2.3.6", "nothing, compressed", z("\x00")).wants(echoText("")),
		echo("X.3.16", "6", "not compressed", fr(opText, "Hello")),
		squeezed,
		declined("X.3.18", "7.1", "an unknown parameter", "permessage-deflate; server_max_window_size=9"),
		declined("X.3.19", "7.1", "a parameter twice", "permessage-deflate; server_no_context_takeover; server_no_context_takeover"),
		declined("X.3.20", "7.1.2.1", "a window of 2^7", "permessage-deflate; server_max_window_bits=7"),
		declined("X.3.21", "7.1.2.1", "a window of 2^16", "permessage-deflate; server_max_window_bits=16"),
		declined("X.3.22", "7.1.1.1", "a value where none belongs", "permessage-deflate; server_no_context_takeover=1"),
		declined("X.3.23", "7.1.2.1", "a window with a leading zero", "permessage-deflate; server_max_window_bits=09"),
		declined("X.3.24", "5", "an extension that nobody has", "permessage-bzip2"),
		echo("X.3.25", "5.1", "the second alternative, the first being unknown", z(helloZ)).
			offers("permessage-bzip2, permessage-deflate"),
	}
}
