package access

import (
	"errors"
	"fmt"
	"slices"

	"github.com/parleyd/parley/protocol/pattern"
)

const rulesMax = 256

// Auth says how much a server demands of a client, by its setting auth.
type Auth uint8

const (
	Off      Auth = iota // tokens are not looked at
	Optional             // a client without a token is let in, without a user
	Required             // a client needs a token
)

// Entry is one rule as the configuration has it: a pattern of rooms, and words that say which clients may act. A field
// with one word is a list of one; a field that is missing is nil.
//
// Owner: the caller.
type Entry struct {
	Match   string   `json:"match"`
	Join    []string `json:"join"`
	Publish []string `json:"publish"`
	Members []string `json:"members,omitempty"`
	History []string `json:"history,omitempty"`
}

// EntryError says which entry of the configuration is wrong, and how. Field is the name of the key in the entry.
type EntryError struct {
	Index   int // from 0
	Field   string
	Problem string
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("rule %d: %s: %s", e.Index, e.Field, e.Problem)
}

// Verdict is the answer of the rules. The zero Verdict is a refusal.
type Verdict uint8

const (
	Forbidden Verdict = iota // the client gets the code forbidden
	Allowed                  // the act may happen
)

// Who is a connection, as far as rules know it. Rights is nil for a connection without a token.
type Who struct {
	User   string
	Rights *Rights
}

// grounds are reasons to allow an act: any of them suffices.
type grounds uint8

const (
	byAnyone  grounds = 1 << iota
	byUsers           // the connection has a user
	byToken           // its token names the room
	byMembers         // the connection is a member
)

// words are the configuration's names of the grounds; the word nobody stands for no ground.
var words = map[string]grounds{"anyone": byAnyone, "users": byUsers, "token": byToken, "members": byMembers, "nobody": 0}

// act is one thing that a client may want to do with a room.
type act uint8

const (
	join act = iota
	publish
	members
	history
	acts // how many there are
)

// field describes the key of an act in an entry.
type field struct {
	name  string
	words []string // that may stand there, besides backend
	list  bool     // several words may stand there
}

var fields = [acts]field{
	join:    {"join", []string{"anyone", "users", "token", "nobody"}, true},
	publish: {"publish", []string{"members", "token", "nobody"}, false},
	members: {"members", []string{"members", "token", "nobody"}, false},
	history: {"history", []string{"members", "token", "nobody"}, false},
}

type rule struct {
	head  pattern.Head
	rooms Pattern
	by    [acts]grounds
}

// Rules say for each room which connections may join it, publish to it, list its members and read its history. A rule with
// {user} matches rooms of the connection's own user only: for the rooms of other users the rules behind it count, so an
// operator writes the rule "user:*" with nobody behind "user:{user}". Owner: immutable after ParseRules.
type Rules struct {
	list []rule
}

// ParseRules compiles the entries of the configuration, at most 256. The first that matches a room counts. Behind them
// stands a rule for all rooms: with auth off, anyone may join and members may publish; else the token decides both. An
// error that an entry causes is an *EntryError. Any goroutine.
func ParseRules(entries []Entry, auth Auth) (*Rules, error) {
	if len(entries) > rulesMax {
		return nil, fmt.Errorf("%d rules: %d are allowed", len(entries), rulesMax)
	}
	r := &Rules{}
	for i := range entries {
		parsed, err := parseEntry(&entries[i])
		if err != nil {
			err.Index = i
			return nil, err
		}
		r.list = append(r.list, parsed)
	}
	all, err := pattern.Parse("**")
	if err != nil {
		return nil, err
	}
	last := rule{pattern.Head{}, all, [acts]grounds{byToken, byToken, byMembers, byMembers}}
	if auth == Off {
		last.by = [acts]grounds{byAnyone, byMembers, byMembers, byMembers}
	}
	r.list = append(r.list, last)
	return r, nil
}

func parseEntry(e *Entry) (rule, *EntryError) {
	rooms, err := pattern.ParseFor(e.Match)
	if err != nil {
		return rule{}, &EntryError{Field: "match", Problem: err.Error()}
	}
	parsed := rule{head: rooms.Head(), rooms: rooms}
	for act, given := range [acts][]string{e.Join, e.Publish, e.Members, e.History} {
		if given == nil && (act == int(members) || act == int(history)) {
			given = []string{"members"}
		}
		by, err := parseWords(&fields[act], given)
		if err != nil {
			return rule{}, &EntryError{Field: fields[act].name, Problem: err.Error()}
		}
		parsed.by[act] = by
	}
	return parsed, nil
}

func parseWords(f *field, given []string) (by grounds, err error) {
	switch {
	case given == nil:
		return 0, fmt.Errorf("it is missing; write one of %s", list(f.words))
	case len(given) == 0:
		return 0, errors.New("the list is empty; write nobody")
	case len(given) > 1 && !f.list:
		return 0, errors.New("a list is allowed for join only; write one word")
	case len(given) > 1 && slices.Contains(given, "nobody"):
		return 0, errors.New("nobody stands alone; take it out, or the other words")
	}
	for i, word := range given {
		switch {
		case word == "backend":
			return 0, errors.New("backend is not there yet; write one of " + list(f.words))
		case !slices.Contains(f.words, word):
			return 0, fmt.Errorf("%.40q is not known here; write one of %s", word, list(f.words))
		case slices.Contains(given[:i], word):
			return 0, fmt.Errorf("%s stands there twice", word)
		}
		by |= words[word]
	}
	return by, nil
}

func list(words []string) (text string) {
	for i, word := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			text += " or "
		default:
			text += ", "
		}
		text += word
	}
	return text
}

// Join decides whether a connection may join a room. Any goroutine; it allocates nothing, as the other decisions do not.
func (r *Rules) Join(who Who, room string) Verdict { return r.decide(join, who, room, false) }

// Publish decides whether a connection may publish to a room; member says whether it is a member, without which no
// connection may.
func (r *Rules) Publish(who Who, room string, member bool) Verdict {
	if !member {
		return Forbidden
	}
	return r.decide(publish, who, room, member)
}

// Members decides whether a connection may list the members of a room.
func (r *Rules) Members(who Who, room string, member bool) Verdict {
	return r.decide(members, who, room, member)
}

// History decides whether a connection may read the history of a room.
func (r *Rules) History(who Who, room string, member bool) Verdict {
	return r.decide(history, who, room, member)
}

func (r *Rules) decide(what act, who Who, room string, member bool) Verdict {
	by := r.find(room, who.User).by[what]
	switch {
	case by&byAnyone != 0,
		by&byUsers != 0 && who.User != "",
		by&byMembers != 0 && member,
		by&byToken != 0 && who.Rights != nil && who.Rights.patterns[what].Match(room):
		return Allowed
	}
	return Forbidden
}

// nothing is the rule of a room that no rule matches: the zero Rules, and a room without a name.
var nothing rule

// find returns the first rule that matches.
func (r *Rules) find(room, user string) *rule {
	first := pattern.HeadOf(room)
	for i := range r.list {
		if one := &r.list[i]; one.head.Fits(first) && one.rooms.MatchFor(room, user) {
			return one
		}
	}
	return &nothing
}
