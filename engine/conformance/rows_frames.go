package conformance

import "fmt"

const (
	hello    = "Hello, world!"
	octets8  = "\x00\xff\xfe\xfd\xfc\xfb\x00\xff" // binary that is no UTF-8
	pattern  = "BAsd7&jh23"
	patternB = "\x00\xfe\x23\xfa\xf0"
)

// framingRows is family 1: every length at which the form of the header changes.
func framingRows() []row {
	sizes := []int{0, 125, 126, 127, 128, 65535, 65536, 65536}
	var all []row
	for i, kind := range []kind{text, binaryMessage} {
		op, unit := opText, "*"
		if kind == binaryMessage {
			op, unit = opBinary, "\xfe"
		}
		for j, size := range sizes {
			chop := joined
			if j == 7 {
				chop = 997
			}
			payload := rep(unit, size)
			all = append(all, echoes(fmt.Sprintf("1.%d.%d", i+1, j+1), "5.2",
				fmt.Sprintf("%v message of %d octets%s", kind, size, how(chop)),
				[]step{chopped(chop, frame{op: op, payload: payload})}).wants(event{kind, payload}))
		}
	}
	return all
}

// how describes a chop in a title.
func how(chop int) string {
	switch chop {
	case joined:
		return ""
	case perFrame:
		return ", frame by frame"
	case 1:
		return ", octet by octet"
	}
	return fmt.Sprintf(", in chops of %d", chop)
}

func bit(set bool) int {
	if set {
		return 1
	}
	return 0
}

// pingRows is family 2.
func pingRows() []row {
	big := string(rep("\xfe", 125).bytes())
	ask := func(number, title, payload string, chop int) row {
		return echoes(number, "5.5.2", title, []step{chopped(chop, fr(opPing, payload))}).wants(echoPong(payload))
	}
	// The close is sent in one write with the pong, so that no answer can come between.
	unasked := func(number, title, payload string) row {
		r := echoes(number, "5.5.3", title, []step{send(fr(opPong, payload), closing(1000, ""))})
		r.end.byUs = false
		return r
	}
	ten := func(number, title string, chop int) row {
		var pings []frame
		var pongs []event
		for i := range 10 {
			payload := fmt.Sprintf("payload-%d", i)
			pings, pongs = append(pings, fr(opPing, payload)), append(pongs, echoPong(payload))
		}
		return echoes(number, "5.5.3", title, []step{chopped(chop, pings...)}).wants(pongs...)
	}
	return []row{
		ask("2.1", "ping without payload", "", joined),
		ask("2.2", "ping with text", hello, joined),
		ask("2.3", "ping with payload that is no UTF-8", octets8, joined),
		ask("2.4", "ping with payload of 125", big, joined),
		fails("2.5", "5.5", "ping with payload of 126", []step{send(fr(opPing, big+"\xfe"))}),
		ask("2.6", "ping with payload of 125, octet by octet", big, 1),
		unasked("2.7", "unsolicited pong without payload, then close", ""),
		unasked("2.8", "unsolicited pong with payload, then close", "unsolicited pong payload"),
		echoes("2.9", "5.5.3", "unsolicited pong, then ping", []step{
			send(fr(opPong, "unsolicited pong payload"), fr(opPing, "ping payload")),
		}).wants(echoPong("ping payload")),
		ten("2.10", "10 pings at once", joined),
		ten("2.11", "10 pings octet by octet", 1),
	}
}

// reservedRows is family 3. The public suite accepts a server that loses the first echo (NON-STRICT); here the echo must
// come, because its message precedes the violation.
func reservedRows() []row {
	second := func(number string, bits byte, chop int) row {
		return fails(number, "5.2", fmt.Sprintf("text, text with RSV=%d, ping", bits), []step{
			chopped(chop, fr(opText, hello), rsv(bits, opText, hello), fr(opPing, "")),
		}).wants(echoText(hello)).lax()
	}
	return []row{
		fails("3.1", "5.2", "text with RSV=1", []step{send(rsv(1, opText, hello))}),
		second("3.2", 2, joined),
		second("3.3", 3, perFrame),
		second("3.4", 4, 1),
		fails("3.5", "5.2", "binary with RSV=5", []step{send(rsv(5, opBinary, octets8))}),
		// The public suite's title says ping; its frame is binary.
		fails("3.6", "5.2", "binary with RSV=6", []step{send(rsv(6, opBinary, hello))}),
		fails("3.7", "5.2", "close with RSV=7", []step{send(rsv(7, opClose, ""))}),
	}
}

// opcodeRows is family 4: five reserved opcodes for data, five for control.
func opcodeRows() []row {
	var all []row
	for i, base := range []byte{3, 11} {
		alone := func(n int, op byte, payload string) row {
			return fails(fmt.Sprintf("4.%d.%d", i+1, n), "5.2", fmt.Sprintf("reserved opcode %d", op),
				[]step{send(fr(op, payload))})
		}
		second := func(n int, op byte, payload string, chop int) row {
			return fails(fmt.Sprintf("4.%d.%d", i+1, n), "5.2", fmt.Sprintf("text, reserved opcode %d, ping", op),
				[]step{chopped(chop, fr(opText, hello), fr(op, payload), fr(opPing, ""))}).
				wants(echoText(hello)).lax()
		}
		all = append(all,
			alone(1, base, ""),
			alone(2, base+1, "reserved opcode payload"),
			second(3, base+2, "", joined),
			second(4, base+3, hello, joined),
			second(5, base+4, hello, 1),
		)
	}
	return all
}

// fragmentRows is family 5.
func fragmentRows() []row {
	two := []frame{more(opText, "fragment1"), fr(opContinuation, "fragment2")}
	pinged := []frame{two[0], fr(opPing, "ping payload"), two[1]}
	both := echoText("fragment1fragment2")
	control := func(number, title string, op byte) row {
		return fails(number, "5.4", title, []step{send(more(op, "fragment1"), two[1])})
	}
	whole := func(number, title string, chop int) row {
		return echoes(number, "5.4", title+how(chop), []step{chopped(chop, two...)}).wants(both)
	}
	between := func(number, title string, chop int) row {
		return echoes(number, "5.4", title+how(chop), []step{chopped(chop, pinged...)}).wants(echoPong("ping payload"), both)
	}
	lost := func(number string, open bool, chop int) row {
		first := fr(opContinuation, "non-continuation payload")
		first.more = open
		return fails(number, "5.4", fmt.Sprintf("continuation FIN=%d with nothing to continue, then text%s", bit(!open), how(chop)),
			[]step{chopped(chop, first, fr(opText, hello))})
	}
	twice := func(number string, open bool) row {
		first := fr(opContinuation, "fragment1")
		first.more = open
		three := []frame{first, more(opText, "fragment2"), fr(opContinuation, "fragment3")}
		return fails(number, "5.4", fmt.Sprintf("twice: continuation FIN=%d with nothing to continue, then two fragments", bit(!open)),
			[]step{send(append(three, three...)...)})
	}
	return []row{
		control("5.1", "ping in two fragments", opPing),
		control("5.2", "pong in two fragments", opPong),
		whole("5.3", "text in two fragments", joined),
		whole("5.4", "text in two fragments", perFrame),
		whole("5.5", "text in two fragments", 1),
		between("5.6", "ping between two fragments", joined),
		between("5.7", "ping between two fragments", perFrame),
		between("5.8", "ping between two fragments", 1),
		lost("5.9", false, joined),
		lost("5.10", false, perFrame),
		lost("5.11", false, 1),
		lost("5.12", true, joined),
		lost("5.13", true, perFrame),
		lost("5.14", true, 1),
		fails("5.15", "5.4", "two fragments, continuation FIN=0 with nothing to continue, text", []step{
			send(two[0], two[1], more(opContinuation, "fragment3"), fr(opText, "fragment4")),
		}).wants(both).lax(),
		twice("5.16", true),
		twice("5.17", false),
		fails("5.18", "5.4", "text begun again where a continuation is due",
			[]step{send(more(opText, "fragment1"), fr(opText, "fragment2"))}),
		pacedRow("5.19", joined),
		pacedRow("5.20", perFrame),
	}
}

// pacedRow demands that a ping within a message is answered before the message ends. The public suite waits a second in the
// middle; here the rest is sent after the first pong.
func pacedRow(number string, chop int) row {
	return echoes(number, "5.4", "five fragments, two pings, a pause for the first pong"+how(chop), []step{
		chopped(chop, more(opText, "fragment1"), more(opContinuation, "fragment2"), fr(opPing, "pongme 1!")),
		await(1),
		chopped(chop, more(opContinuation, "fragment3"), more(opContinuation, "fragment4"),
			fr(opPing, "pongme 2!"), fr(opContinuation, "fragment5")),
	}).wants(echoPong("pongme 1!"), echoPong("pongme 2!"), echoText("fragment1fragment2fragment3fragment4fragment5"))
}
