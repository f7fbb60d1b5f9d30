package engine

import (
	"fmt"
	"testing"
)

// Ann and Bob meet in a room, talk, part.
func TestRoomOverLoopback(t *testing.T) {
	s := startServer(t, nil, nil)
	ann, bob := dial(t, s), dial(t, s)
	ann.send(`{"type":"join","room":"r","ref":1}`)
	if m := ann.expect("joined"); m["members"] != 1.0 || m["ref"] != 1.0 {
		t.Fatal(m)
	}
	bob.send(`{"type":"join","room":"r"}`)
	if m := bob.expect("joined"); m["members"] != 2.0 {
		t.Fatal(m)
	}
	if m := ann.expect("member_joined"); m["connection_id"] != bob.id {
		t.Fatal(m)
	}
	for i := range 100 {
		bob.send(fmt.Sprintf(`{"type":"broadcast","room":"r","data":%d}`, i))
	}
	for i := range 100 {
		if m := ann.expect("broadcast"); m["data"] != float64(i) || m["from"] != bob.id {
			t.Fatal(i, m)
		}
		if m := bob.expect("broadcast_sent"); m["recipients"] != 1.0 {
			t.Fatal(m)
		}
	}
	bob.conn.Close()
	if m := ann.expect("member_left"); m["connection_id"] != bob.id {
		t.Fatal(m)
	}
}

// A client that is cut off resumes with its rooms, once.
func TestResumeOverLoopback(t *testing.T) {
	s := startServer(t, nil, nil)
	ann, bob := dial(t, s), dial(t, s)
	ann.send(`{"type":"join","room":"r"}`)
	ann.expect("joined")
	bob.send(`{"type":"join","room":"r"}`)
	bob.expect("joined")
	ann.expect("member_joined")
	s.Connection(bob.id).SetAttribute("user", 7)
	bob.conn.Close()
	ann.expect("member_left")
	heir := dial(t, s)
	heir.send(`{"type":"reconnect","token":"` + bob.token + `"}`)
	if m := heir.expect("reconnected"); m["previous_connection_id"] != bob.id || fmt.Sprint(m["rooms"]) != "[r]" {
		t.Fatal(m)
	}
	heir.expect("reconnect_token")
	ann.expect("member_joined")
	if v, ok := Attribute[int](s.Connection(heir.id), "user"); !ok || v != 7 {
		t.Fatal(v, ok)
	}
	thief := dial(t, s)
	thief.send(`{"type":"reconnect","token":"` + bob.token + `"}`)
	if m := thief.expect("error"); m["code"] != "invalid_token" {
		t.Fatal(m)
	}
}

// A half-open predecessor is taken over: it is closed with 4004, its member_left comes first.
func TestTakeOverOverLoopback(t *testing.T) {
	s := startServer(t, nil, nil)
	ann, bob := dial(t, s), dial(t, s)
	for _, c := range []*client{ann, bob} {
		c.send(`{"type":"join","room":"r"}`)
		c.expect("joined")
	}
	ann.expect("member_joined")
	heir := dial(t, s)
	heir.send(`{"type":"reconnect","token":"` + bob.token + `"}`)
	if m := heir.expect("reconnected"); fmt.Sprint(m["rooms"]) != "[r]" {
		t.Fatal(m)
	}
	if m := ann.expect("member_left"); m["connection_id"] != bob.id {
		t.Fatal(m)
	}
	if m := ann.expect("member_joined"); m["connection_id"] != heir.id {
		t.Fatal(m)
	}
	if code := bob.expectClose(); code != StatusTakenOver {
		t.Fatal(code)
	}
}
