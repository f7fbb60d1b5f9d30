package connect

import (
	"fmt"
	"strings"
)

const help = `A line that you type goes to the current room. A line that begins with / is a command:
  /join ROOM      join a room, and make it the current one
  /leave [ROOM]   leave a room; the current one by default
  /room [ROOM]    make a room that you are in the current one; without ROOM list the rooms
  /members [ROOM] list the members of a room
  /to ID TEXT     send a text to one connection (the server's example "private")
  /raw TEXT       send a frame as it stands: /raw {"type":"ping"}
  /ping           ask the server, and show how long its answer takes
  /quit           leave
  /help           show this
A text that begins with / is typed with two of them: //shrug`

// obey carries out a line that was typed.
func (c *conversation) obey(text string) {
	switch {
	case strings.HasPrefix(text, "//"):
		c.broadcast(text[1:])
		return
	case !strings.HasPrefix(text, "/"):
		c.broadcast(text)
		return
	}
	verb, rest, _ := strings.Cut(text[1:], " ")
	rest = strings.TrimLeft(rest, " ")
	name := strings.TrimSpace(rest)
	switch verb {
	case "join":
		if name == "" {
			c.p.say("/join needs the name of a room")
			return
		}
		c.current = name
		c.join(c.want(name), askJoin)
	case "leave":
		c.inRoom(name, "leave")
	case "members":
		c.inRoom(name, "members")
	case "room":
		c.choose(name)
	case "to":
		to, message, _ := strings.Cut(rest, " ")
		if message == "" {
			c.p.say("/to needs the id of a connection and a text")
			return
		}
		c.ask(askOther, "", &request{Type: "private", To: to, Text: message})
	case "raw":
		c.tell([]byte(rest))
	case "ping":
		c.ask(askPing, "", &request{Type: "ping"})
	case "quit":
		c.finish()
	case "help":
		for line := range strings.SplitSeq(help, "\n") {
			fmt.Fprintln(c.p.notes, line)
		}
	default:
		c.p.say("/%s is no command; /help lists them", escaped(verb))
	}
}

func (c *conversation) broadcast(text string) {
	if c.current == "" {
		c.p.say("there is no current room: /join ROOM")
		return
	}
	c.ask(askOther, c.current, &request{Type: "broadcast", Room: c.current, Data: &text})
}

// inRoom sends a message about a room, by default the current one.
func (c *conversation) inRoom(name, kind string) {
	if name == "" {
		name = c.current
	}
	if name == "" {
		c.p.say("/%s needs the name of a room: there is no current one", kind)
		return
	}
	c.ask(askOther, name, &request{Type: kind, Room: name})
}

func (c *conversation) choose(name string) {
	switch {
	case name == "" && len(c.rooms) == 0:
		c.p.say("you are in no room")
	case name == "":
		for _, r := range c.rooms {
			mark := " "
			if r.name == c.current {
				mark = "*"
			}
			fmt.Fprintf(c.p.notes, "%s %s\n", mark, escaped(r.name))
		}
	case c.find(name) == nil:
		c.p.say("you are not in %s: /join it", escaped(name))
	default:
		c.current = name
		c.p.say("what you type goes to %s", escaped(name))
	}
}
