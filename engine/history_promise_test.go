package engine

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// Many random worlds: members come, go, stall and come back, and the promise holds for each of them.
func TestHistoryPromise(t *testing.T) {
	seeds := 150
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { playHistory(t, rand.New(rand.NewPCG(uint64(seed), 16))) })
	}
}

// player is a client of playHistory.
type player struct {
	*follower
	c     *Conn
	token string
	last  map[string]Position
}

func playHistory(t *testing.T, random *rand.Rand) {
	policies := []string{"drop", "conflate", "disconnect"}
	w := historic(t, fmt.Sprintf("h*=messages:%d;bytes:%d;slow:%s", 1+random.IntN(30), 500+random.IntN(200_000), policies[random.IntN(3)]))
	s := w.server.Server
	newFollower := follow(t)
	var players []*player
	for i := range 4 {
		p := &player{follower: newFollower(fmt.Sprint("player ", i)), c: w.open(i % 2)}
		players = append(players, p)
	}
	names := []string{"h1", "h2"}
	listen := func(p *player) {
		p.t.Helper()
		if p.c == nil {
			return
		}
		texts := w.read(p.c)
		p.take(texts)
		if p.c.Cause() != CauseNone {
			p.token, p.c = w.lastToken(texts, p.token), nil
			return
		}
		p.token = w.lastToken(texts, p.token)
	}
	pad := func() string { return strings.Repeat("x", random.IntN(1+random.IntN(30_000))) }
	for range 120 {
		p, room := players[random.IntN(len(players))], names[random.IntN(2)]
		switch action := random.IntN(20); {
		case p.c == nil || p.c.Cause() != CauseNone:
			last, _ := json.Marshal(p.at)
			p.c = w.open(random.IntN(2))
			rooms := p.at
			p.at = map[string]Position{}
			p.take(w.read(p.c))
			text := `{"type":"reconnect","token":"` + p.token + `"`
			if random.IntN(3) > 0 && len(rooms) > 0 {
				text += `,"last":` + string(last)
			}
			w.say(p.c, text+"}")
		case action < 4:
			since := ""
			if at, known := p.at[room]; known && random.IntN(2) == 0 {
				since = fmt.Sprintf(`,"since":{"seq":%d,"epoch":%q}`, at.Seq-min(at.Seq, uint64(random.IntN(4))), at.Epoch)
			} else if random.IntN(3) == 0 {
				since = fmt.Sprintf(`,"since":{"last":%d}`, 1+random.IntN(5))
			}
			w.say(p.c, `{"type":"join","room":"`+room+`"`+since+`}`)
			t.Log(p.name, "joins", room, since)
		case action < 5:
			w.say(p.c, `{"type":"leave","room":"`+room+`"}`)
			t.Log(p.name, "leaves", room)
		case action < 9:
			t.Log(p.name, "broadcasts", room)
			w.say(p.c, fmt.Sprintf(`{"type":"broadcast","room":%q,"data":%q,"key":"k%d"}`, room, pad(), random.IntN(3)))
		case action < 13:
			if err := s.Publish(room, newsOf(room, 0, pad()), BroadcastOptions{Except: []string{players[0].follower.name, idOf(players[random.IntN(4)])}[:random.IntN(3)], Key: "k"}); err != nil {
				t.Fatal(err)
			}
		case action < 15:
			w.takes[int(p.c.wire.Fd)] = random.IntN(2000)
			t.Log(p.name, "stalls")
		case action < 18:
			if _, stalls := w.takes[int(p.c.wire.Fd)]; stalls {
				delete(w.takes, int(p.c.wire.Fd))
				w.server.Writable(p.c)
				w.drain()
				listen(p)
			}
		case action < 19:
			if _, stalls := w.takes[int(p.c.wire.Fd)]; !stalls {
				w.drain()
				listen(p)
				if p.c != nil {
					w.server.Gone(p.c)
					p.c = nil
				}
			}
		default:
			w.pass(time.Duration(random.IntN(2000)) * time.Millisecond)
		}
		if random.IntN(3) > 0 {
			w.drain()
		}
		for _, p := range players {
			if p.c != nil {
				if _, stalls := w.takes[int(p.c.wire.Fd)]; !stalls {
					listen(p)
				}
			}
		}
	}
	for _, p := range players {
		if p.c != nil {
			delete(w.takes, int(p.c.wire.Fd))
			w.server.Writable(p.c)
		}
	}
	w.drain()
	for _, p := range players {
		listen(p)
		if p.c == nil {
			continue
		}
		for room, at := range p.at {
			if page, err := s.History(t.Context(), room, HistoryQuery{}); err != nil || page.Top != at.Seq || page.Epoch != at.Epoch {
				t.Errorf("%s is at %+v at the end, and the room at %d (%v)", p.name, at, page.Top, err)
			}
		}
	}
}

func idOf(p *player) string {
	if p.c == nil {
		return ""
	}
	return p.c.ID()
}

// lastToken is the newest token among texts.
func (w *script) lastToken(texts []string, before string) string {
	for _, text := range slices.Backward(texts) {
		if rest, is := strings.CutPrefix(text, `{"type":"reconnect_token","token":"`); is {
			token, _, _ := strings.Cut(rest, `"`)
			return token
		}
	}
	return before
}
