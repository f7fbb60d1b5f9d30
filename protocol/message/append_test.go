package message

import (
	"encoding/json"
	"math"
	"testing"
	"unicode/utf8"
)

// Every message of the server's own has the bytes of the wire protocol.
func TestAppend(t *testing.T) {
	id, room, ref := []byte("0001"), []byte("a\"b"), []byte(`"r"`)
	for want, got := range map[string][]byte{
		`{"type":"connected","connection_id":"0001","timestamp":12}`:                                      AppendConnected(nil, id, 12),
		`{"type":"reconnect_token","token":"T","ttl":300}`:                                                AppendReconnectToken(nil, "T", 300),
		`{"type":"joined","room":"a\"b","members":3,"ref":"r"}`:                                           AppendJoined(nil, Joined{Room: room, Members: 3, Ref: ref}),
		`{"type":"joined","room":"a\"b","members":3,"gap":true}`:                                          AppendJoined(nil, Joined{Room: room, Members: 3, Start: Start{Gap: true}}),
		`{"type":"left","room":"a\"b"}`:                                                                   AppendLeft(nil, room, nil),
		`{"type":"broadcast","room":"a\"b","from":"0001","data":{"x":1},"timestamp":12}`:                  AppendBroadcast(nil, Broadcast{Room: room, From: id, Data: []byte(`{"x":1}`), Timestamp: 12}),
		`{"type":"broadcast_sent","room":"a\"b","recipients":2,"ref":"r"}`:                                AppendBroadcastSent(nil, BroadcastSent{Room: room, Recipients: 2, Ref: ref}),
		`{"type":"pong","timestamp":12}`:                                                                  AppendPong(nil, 12, nil),
		`{"type":"reconnected","connection_id":"0001","previous_connection_id":"0001","rooms":["x","y"]}`: AppendReconnected(nil, Reconnected{ID: id, Previous: id, Rooms: []string{"x", "y"}}),
		`{"type":"reconnected","connection_id":"0001","previous_connection_id":"0001","rooms":[],"lost":[{"room":"z","code":"room_full"}],"gaps":["x"],"ref":"r"}`: AppendReconnected(nil,
			Reconnected{ID: id, Previous: id, Lost: []LostRoom{{"z", "room_full"}}, Gaps: []string{"x"}, Ref: ref}),
		`{"type":"member_joined","room":"x","connection_id":"0001"}`:                     AppendMemberJoined(nil, Notice{Room: "x", ID: id}),
		`{"type":"member_left","room":"x","connection_id":"0001"}`:                       AppendMemberLeft(nil, Notice{Room: "x", ID: id}),
		`{"type":"announcements","room":"x","on":false,"members":501}`:                   AppendAnnouncements(nil, "x", false, 501),
		`{"type":"members","room":"a\"b","count":2,"members":["p","q"],"partial":false}`: AppendMembers(nil, Members{Room: room, Count: 2, IDs: []string{"p", "q"}}),
		`{"type":"broadcast","room":"x","from":"0001","user":"a\"b","data":1,"timestamp":12}`: AppendBroadcast(nil,
			Broadcast{Room: []byte("x"), From: id, User: string(AppendString(nil, `a"b`)), Data: []byte("1"), Timestamp: 12}),
		`{"type":"member_joined","room":"x","connection_id":"0001","user":"a\"b"}`: AppendMemberJoined(nil, Notice{"x", id, `a"b`}),
		`{"type":"member_left","room":"x","connection_id":"0001","user":"\u0000"}`: AppendMemberLeft(nil, Notice{"x", id, "\x00"}),
		`{"type":"members","room":"x","count":3,"members":["p","q","r"],"users":[null,"a\"b",null],"partial":false}`: AppendMembers(nil,
			Members{Room: []byte("x"), Count: 3, IDs: []string{"p", "q", "r"}, Users: []string{"", `a"b`}}),
		`{"type":"goodbye","retry_after":7}`:                          AppendGoodbye(nil, 7),
		`{"type":"authenticated"}`:                                    AppendAuthenticated(nil, nil),
		`{"type":"error","code":"room_full","message":"m","ref":"r"}`: AppendError(nil, "room_full", "m", ref),
	} {
		if string(got) != want || !json.Valid(got) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestAppendRef(t *testing.T) {
	for in, want := range map[string]string{`{}`: `{"ref":7}`, `{"a":1}`: `{"a":1,"ref":7}`, `{"a":1} `: `{"a":1,"ref":7}`,
		`{"ref":1}`: `{"ref":1}`, `{"a":{"ref":1}}`: `{"a":{"ref":1},"ref":7}`, `{ }`: `{ "ref":7}`} {
		if got := string(AppendRef([]byte(in), []byte("7"))); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

// Every code has a name and a sentence.
func TestCodes(t *testing.T) {
	for c := OK + 1; c < codes; c++ {
		if c.String() == "" || c.Text() == "" {
			t.Errorf("code %d says nothing", c)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("quote \" slash \\ tab\t nul\x00 \u2028 \xff é")
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		if err := json.Unmarshal(AppendString(nil, s), &back); err != nil {
			t.Fatal(err)
		}
		if utf8.ValidString(s) && back != s || !utf8.ValidString(back) {
			t.Fatalf("%q became %q", s, back)
		}
	})
}

// For the application's types, Decode keeps no bytes and compares keys exactly; values that JSON cannot hold are errors.
func TestCodec(t *testing.T) {
	payload := []byte(`{"text":"hello","Text":"no"}`)
	var v struct {
		Text string `json:"text"`
	}
	if err := Decode(payload, &v); err != nil {
		t.Fatal(err)
	}
	clear(payload)
	if v.Text != "hello" {
		t.Errorf("got %q: it refers to borrowed bytes, or keys are not exact", v.Text)
	}
	if Decode([]byte(`{"text":"a`+"\x01"+`"}`), &v) == nil {
		t.Error("a control character passed")
	}
	out, err := Encode([]byte("head"), map[string]any{"b": "<&>", "a": 1})
	if err != nil || string(out) != `head{"a":1,"b":"<&>"}` {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := Encode(nil, math.NaN()); err == nil {
		t.Error("NaN passed")
	}
	if _, err := Encode(nil, make(chan int)); err == nil {
		t.Error("a channel passed")
	}
}

// The hot path allocates nothing.
func TestNoAllocation(t *testing.T) {
	p := envelopes["126B"]
	var e Envelope
	dst := make([]byte, 0, 1024)
	id, quoted := []byte("000102030405060708090a0b"), `"ann"`
	if n := testing.AllocsPerRun(100, func() {
		Route(p, &e)
		dst = AppendBroadcast(dst[:0], Broadcast{Room: e.Room, From: id, User: quoted, Data: e.Data, Timestamp: 1})
		dst = AppendBroadcastSent(dst[:0], BroadcastSent{Room: e.Room, Recipients: 9, Ref: e.Ref})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
