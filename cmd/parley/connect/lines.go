package connect

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/cmd/parley/show"
)

// printer writes what the server says to out, and what the client itself says to notes.
//
// Owner: the conversation.
type printer struct {
	out, notes io.Writer
	form       Form
	failed     error // the first write to out that failed
}

func (p *printer) write(line string) {
	if p.failed == nil {
		_, p.failed = io.WriteString(p.out, line+"\n")
	}
}

// say writes a sentence of the client itself. Its arguments are texts that were made harmless.
func (p *printer) say(format string, args ...any) {
	fmt.Fprintf(p.notes, "parley: "+format+"\n", args...)
}

// sent shows a frame to the server.
func (p *printer) sent(op ws.OpCode, payload []byte) {
	if p.form == Raw {
		p.write("-> " + frameText(op, payload))
	}
}

// got shows a frame of the server, but for a line that a person reads.
func (p *printer) got(a *arrival) {
	switch {
	case p.form == Raw:
		p.write("<- " + frameText(a.op, a.payload))
	case p.form == JSON && a.op == ws.OpText && json.Valid(a.payload):
		p.write(string(escapedJSON(a.payload)))
	case p.form == JSON && a.op == ws.OpText:
		text, err := json.Marshal(map[string]string{"text": string(a.payload)})
		if err == nil {
			p.write(string(escapedJSON(text)))
		}
	case p.form == JSON && a.op == ws.OpBinary:
		p.write(`{"binary":"` + base64.StdEncoding.EncodeToString(a.payload) + `"}`)
	case p.form == Lines && a.op == ws.OpBinary:
		p.event(time.Time{}, "", fmt.Sprintf("binary message of %d bytes (--raw shows it)", len(a.payload)))
	}
}

// frameText is a frame on one line.
func frameText(op ws.OpCode, payload []byte) string {
	switch op {
	case ws.OpText:
		return escaped(string(payload))
	case ws.OpBinary:
		return strings.TrimRight(fmt.Sprintf("binary, %d bytes: %s", len(payload), hex.EncodeToString(payload)), ": ")
	case ws.OpPing:
		return strings.TrimSpace("PING " + hex.EncodeToString(payload))
	case ws.OpPong:
		return strings.TrimSpace("PONG " + hex.EncodeToString(payload))
	}
	if len(payload) == 0 {
		return "close"
	}
	code, reason := ws.ParseCloseFrameData(payload)
	return strings.TrimSpace(fmt.Sprintf("close %d %s", code, escaped(reason)))
}

// event writes a line about a room, or about the connection. at is zero for now.
func (p *printer) event(at time.Time, room, text string) { p.line(at, room, "*", text) }

func (p *printer) line(at time.Time, room, from, text string) {
	if at.IsZero() {
		at = time.Now()
	}
	line := at.Format(time.TimeOnly) + " "
	if room != "" {
		line += "[" + escaped(room) + "] "
	}
	p.write(line + from + " " + text)
}

// message writes a message as a line for a person.
func (p *printer) message(m *reply, payload []byte) {
	if p.form != Lines {
		return
	}
	room, at := "", time.Time{}
	if m.Room != nil {
		room = *m.Room
	}
	if m.Timestamp > 0 && m.Timestamp < 1<<40 {
		at = time.Unix(m.Timestamp, 0)
	}
	switch m.Type {
	case "broadcast":
		p.line(at, room, "<"+sender(m)+">", clipped(escaped(dataText(m.Data))))
	case "error":
		p.line(at, room, "!", escaped(m.Code)+": "+clipped(escaped(m.Message)))
	case "members":
		p.members(m, room)
	case "history":
		p.event(at, room, fmt.Sprintf("history: %s; the room has kept numbers %d to %d", show.Things(len(m.Messages), "message"), numberIn(payload, "low"), numberIn(payload, "top")))
		for _, one := range m.Messages {
			if old, ok := readReply(one); ok {
				p.message(&old, one)
			}
		}
	case "reconnect_token", "reconnected", "skip", "gap", "goodbye", "ping", "pong", "auth_expiring":
		// notices of the client tell what there is to tell
	default:
		if text := eventText(m); text != "" {
			p.event(time.Time{}, room, text)
			return
		}
		p.foreign(m, payload, at)
	}
}

// foreign writes a message of the application.
func (p *printer) foreign(m *reply, payload []byte, at time.Time) {
	room, kind := "", ""
	switch {
	case m.Room != nil:
		room = *m.Room
	case m.Type != "":
		kind = escaped(m.Type) + " "
	}
	if from := textOf(m.From); m.Text != nil && from != "" {
		p.line(at, room, kind+"<"+escaped(from)+">", clipped(escaped(*m.Text)))
		return
	}
	p.event(at, room, clipped(string(escapedJSON(payload))))
}

// eventText is what a message of the server tells; "" if it is none of these.
func eventText(m *reply) string {
	who := escaped(m.ID)
	if m.User != "" {
		who += " (" + escaped(m.User) + ")"
	}
	switch m.Type {
	case "connected":
		return "connected as " + who
	case "authenticated":
		if m.User != "" {
			return "authenticated as " + escaped(m.User)
		}
		return "authenticated"
	case "joined":
		return "joined: " + show.Things(int(numberOf(m.Members)), "member")
	case "left":
		if m.Code != "" {
			return "left: " + escaped(m.Code)
		}
		return "left"
	case "member_joined":
		return who + " has joined"
	case "member_left":
		return who + " has left"
	case "announcements":
		if m.On {
			return fmt.Sprintf("joins and leaves are told again: %d members", numberOf(m.Members))
		}
		return fmt.Sprintf("joins and leaves are told no more: %d members", numberOf(m.Members))
	case "position":
		return fmt.Sprintf("the room has a history now, at number %d", m.Seq)
	case "broadcast_sent":
		return sentText(m)
	}
	return ""
}

func sentText(m *reply) string {
	switch {
	case m.Duplicate != nil:
		return fmt.Sprintf("sent before, with the number %d", m.Duplicate.Seq)
	case m.Delayed:
		return "sent to " + show.Things(m.Recipients, "member") + "; to those on other workers later, since the bus is away"
	}
	return "sent to " + show.Things(m.Recipients, "member")
}

func (p *printer) members(m *reply, room string) {
	var ids []string
	if json.Unmarshal(m.Members, &ids) != nil {
		return
	}
	p.event(time.Time{}, room, show.Things(m.Count, "member")+":")
	for i, id := range ids {
		line := "         " + escaped(id)
		if i < len(m.Users) && m.Users[i] != nil {
			line += " " + escaped(*m.Users[i])
		}
		p.write(line)
	}
	if m.Partial && m.Next == "" {
		p.write("         (this is not all: a worker did not answer)")
	}
}

// sender is the user or the id of a broadcast's sender. A backend has neither.
func sender(m *reply) string {
	switch from := textOf(m.From); {
	case m.User != "":
		return escaped(m.User)
	case from != "":
		return escaped(from)
	}
	return "backend"
}

// dataText is a text without its quotes, and any other JSON as it is.
func dataText(data json.RawMessage) string {
	var text string
	if json.Unmarshal(data, &text) == nil && len(data) > 0 && data[0] == '"' {
		return text
	}
	return string(escapedJSON(data))
}

func numberIn(payload []byte, name string) uint64 {
	var all map[string]json.RawMessage
	if json.Unmarshal(payload, &all) != nil {
		return 0
	}
	return numberOf(all[name])
}
