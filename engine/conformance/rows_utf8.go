package conformance

import (
	"fmt"
	"unicode/utf8"
)

const (
	mixed = "Hello-µ@ßöäüàá-UTF-8!!"
	greek = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5" // valid, 11 octets
	after = "edited"
)

// utf8Rows is families 6.1 to 6.4.
func utf8Rows() []row {
	bad := greek + "\xed\xa0\x80" + after // a surrogate
	inPieces := func(number, title, payload string) row {
		return echoes(number, "8.1", title, []step{pieces(opText, lit(payload), 1)}).wants(echoText(payload))
	}
	return append([]row{
		echoes("6.1.1", "5.6", "empty text", []step{send(fr(opText, ""))}).wants(echoText("")),
		echoes("6.1.2", "5.4", "text in three empty fragments", []step{
			send(more(opText, ""), more(opContinuation, ""), fr(opContinuation, "")),
		}).wants(echoText("")),
		echoes("6.1.3", "5.4", "text in three fragments, the outer ones empty", []step{
			send(more(opText, ""), more(opContinuation, "middle frame payload"), fr(opContinuation, "")),
		}).wants(echoText("middle frame payload")),
		echoes("6.2.1", "8.1", "valid text", []step{send(fr(opText, mixed))}).wants(echoText(mixed)),
		echoes("6.2.2", "8.1", "valid text cut between code points", []step{
			send(more(opText, "Hello-µ@ßöä"), fr(opContinuation, "üàá-UTF-8!!")),
		}).wants(echoText(mixed)),
		inPieces("6.2.3", "valid text in fragments of one octet", mixed),
		inPieces("6.2.4", "valid Greek in fragments of one octet", greek),
		fails("6.3.1", "8.1", "a surrogate", []step{send(fr(opText, bad))}).codes(1007),
		fails("6.3.2", "8.1", "a surrogate in fragments of one octet", []step{pieces(opText, lit(bad), 1)}).codes(1007),
	}, failFastRows()...)
}

// failFastRows is family 6.4. The rest of the message is never sent, so that a server that waits for it fails by the
// deadline; for the public suite that is NON-STRICT.
func failFastRows() []row {
	const bad = "\xf4\x90\x80\x80" // U+110000; already its second octet is wrong
	message := greek + bad + after
	inFrames := func(number, title string, from, to int) row {
		return fails(number, "8.1", title, []step{
			send(more(opText, message[:from])),
			{quiet: true},
			send(more(opContinuation, message[from:to])),
		}).codes(1007)
	}
	// header is 6 octets: two and the mask.
	const header = 6
	whole := appendFrame(nil, 0x80|opText, []byte(message))
	inOneFrame := func(number, title string, from, to int) row {
		return fails(number, "8.1", title, []step{
			raw(whole[:header+from]...),
			{quiet: true},
			raw(whole[header+from : header+to]...),
		}).codes(1007)
	}
	return []row{
		inFrames("6.4.1", "a frame of valid text, one with U+110000, no more", len(greek), len(greek)+4),
		inFrames("6.4.2", "a frame up to the last valid octet, one with the octet that cannot be, no more", 12, 13),
		inOneFrame("6.4.3", "a frame's valid text, then its U+110000, no more", len(greek), len(greek)+4),
		inOneFrame("6.4.4", "a frame up to the last valid octet, then the octet that cannot be, no more", 12, 13),
	}
}

// utf8SequenceRows is families 6.5 to 6.23: one text message for each sequence. The table says whether a sequence is valid,
// and a test compares that with unicode/utf8.
func utf8SequenceRows() []row {
	var all []row
	for i, group := range utf8Groups() {
		for j, sequence := range group.sequences {
			number, steps := fmt.Sprintf("6.%d.%d", i+5, j+1), []step{send(fr(opText, sequence))}
			if group.valid == allOf || group.valid == partly && utf8.ValidString(sequence) {
				all = append(all, echoes(number, "8.1", group.title, steps).wants(echoText(sequence)))
			} else {
				all = append(all, fails(number, "8.1", group.title, steps).codes(1007))
			}
		}
	}
	return all
}

// Which of a group's sequences are valid UTF-8.
const (
	allOf = iota
	noneOf
	partly
)

type utf8Group struct {
	title     string
	valid     int
	sequences []string
}

// utf8Groups follows Markus Kuhn's decoder stress test, as the public suite does.
func utf8Groups() []utf8Group {
	missing := []string{
		"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
		"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf",
	}
	return []utf8Group{
		{"valid text", allOf, []string{"hello$world", "hello¢world", "hello€world", "hello\U00024b62world", greek}},
		{"prefix of a valid text", partly, prefixes(greek)},
		{"first sequence of its length", allOf, []string{"\x00", "\xc2\x80", "\xe0\xa0\x80", "\xf0\x90\x80\x80"}},
		{"first sequence of length 5 and 6", noneOf, []string{"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80"}},
		{"last sequence of its length", allOf, []string{"\x7f", "\xdf\xbf", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf"}},
		{"last sequence of length 4, 5 and 6", noneOf, []string{
			"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf"}},
		{"boundary of the range", partly, []string{
			"\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbd", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80"}},
		{"continuation octets out of place", noneOf, []string{
			"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf", "\x80\xbf\x80\xbf\x80",
			"\x80\xbf\x80\xbf\x80\xbf", run(0x80, 0xbf, "")}},
		{"lonely start octets", noneOf, []string{
			run(0xc0, 0xdf, " "), run(0xe0, 0xef, " "), run(0xf0, 0xf7, " "), run(0xf8, 0xfb, " "), run(0xfc, 0xfd, " ")}},
		{"last octet missing", noneOf, missing},
		{"incomplete sequences on end", noneOf, []string{concat(missing)}},
		{"impossible octets", noneOf, []string{"\xfe", "\xff", "\xfe\xfe\xff\xff"}},
		{"overlong slash", noneOf, []string{
			"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"}},
		{"longest overlong", noneOf, []string{
			"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"}},
		{"overlong NUL", noneOf, []string{
			"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"}},
		{"single surrogate", noneOf, []string{
			"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf"}},
		{"paired surrogates", noneOf, []string{
			"\xed\xa0\x80\xed\xb0\x80", "\xed\xa0\x80\xed\xbf\xbf", "\xed\xad\xbf\xed\xb0\x80", "\xed\xad\xbf\xed\xbf\xbf",
			"\xed\xae\x80\xed\xb0\x80", "\xed\xae\x80\xed\xbf\xbf", "\xed\xaf\xbf\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf"}},
		{"code point that is no character", allOf, noCharacters()},
		{"special code point", allOf, []string{"\ufff9", "\ufffa", "\ufffb", "\ufffc", "\ufffd", "\ufffe", "\uffff"}},
	}
}

func prefixes(s string) (all []string) {
	for i := range len(s) {
		all = append(all, s[:i+1])
	}
	return all
}

// run is the octets from first up to, not including, end, each followed by gap.
func run(first, end byte, gap string) (s string) {
	for b := first; b < end; b++ {
		s += string([]byte{b}) + gap
	}
	return s
}

func concat(parts []string) (s string) {
	for _, part := range parts {
		s += part
	}
	return s
}

// noCharacters are U+FFFE and U+FFFF, then the code points of every higher plane that end in FFFE or FFFF: F0 9F BF BE is
// U+1FFFE.
func noCharacters() []string {
	all := []string{"\ufffe", "\uffff"}
	for plane := rune(1); plane <= 16; plane++ {
		all = append(all, string(plane<<16|0xfffe), string(plane<<16|0xffff))
	}
	return all
}
