package api

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/parleyd/parley/engine/access"
)

// A key is a text pk_ID_SECRET. The server stores the SHA-256 of the whole text: a secret has 256 random bits, so that a slow
// hash would add nothing.

// scope is a set of rights.
type scope uint8

const (
	scopePublish scope = 1 << iota
	scopeRead
	scopeManage
	scopeTokens
	scopeHooks
	scopeOperate

	scopeAll = scopePublish | scopeRead | scopeManage | scopeTokens | scopeHooks | scopeOperate
)

// scopeNames are in the order in which messages list them.
var scopeNames = []struct {
	name  string
	scope scope
}{
	{"publish", scopePublish}, {"read", scopeRead}, {"manage", scopeManage}, {"tokens", scopeTokens}, {"hooks", scopeHooks},
	{"operate", scopeOperate}, {"all", scopeAll},
}

// String is the name of a single scope.
func (s scope) String() string {
	for _, known := range scopeNames {
		if known.scope == s {
			return known.name
		}
	}
	return "none"
}

func scopeOf(name string) (scope, bool) {
	for _, known := range scopeNames {
		if known.name == name {
			return known.scope, true
		}
	}
	return 0, false
}

// KeyEntry is a key as a configuration has it.
//
// Owner: the caller.
type KeyEntry struct {
	ID     string   `yaml:"id" json:"id"`
	SHA256 string   `yaml:"sha256" json:"sha256"` // of the whole key, in hexadecimal
	Scopes []string `yaml:"scopes" json:"scopes"`
	Rooms  []string `yaml:"rooms,omitempty" json:"rooms,omitempty"` // patterns; none: every room
	Until  string   `yaml:"until,omitempty" json:"until,omitempty"` // from this date or time on the key is refused; empty: never
}

// EntryError says which entry of a list of keys is wrong, and in which field.
type EntryError struct {
	Index int
	Field string
	Why   string
}

func (e *EntryError) Error() string { return fmt.Sprintf("keys[%d].%s: %s", e.Index, e.Field, e.Why) }

// key is a compiled entry.
//
// Owner: immutable once compiled.
type key struct {
	id     string
	sum    [sha256.Size]byte
	scopes scope
	rooms  *access.Patterns // nil: every room
	until  time.Time
}

// Keys are the keys that are good. They are immutable: a reload makes new ones.
type Keys struct {
	byID map[string][]*key
}

const (
	keyPrefix   = "pk_"
	secretBytes = 32 // random ones
	secretText  = 43 // characters of base64url
	idBytesMax  = 64
	keyBytesMax = len(keyPrefix) + idBytesMax + 1 + secretText
)

// CompileKeys checks entries and makes keys of them. Two entries may have one id and different secrets, so that a key can be
// replaced while both are good. An error that an entry causes is an [*EntryError].
func CompileKeys(entries []KeyEntry) (*Keys, error) {
	keys := &Keys{byID: map[string][]*key{}}
	for i, e := range entries {
		k, field, why := compileKey(e)
		if why == "" && slices.ContainsFunc(keys.byID[e.ID], func(old *key) bool { return old.sum == k.sum }) {
			field, why = "sha256", "an earlier entry is the same key"
		}
		if why != "" {
			return nil, &EntryError{i, field, why}
		}
		keys.byID[e.ID] = append(keys.byID[e.ID], k)
	}
	return keys, nil
}

// Len is the number of keys.
func (k *Keys) Len() (n int) {
	for _, list := range k.byID {
		n += len(list)
	}
	return n
}

func compileKey(e KeyEntry) (k *key, field, why string) {
	k = &key{id: e.ID}
	if !validID(e.ID) {
		return nil, "id", idRule
	}
	if n, err := hex.Decode(k.sum[:], []byte(e.SHA256[:min(len(e.SHA256), 2*sha256.Size)])); err != nil || n != sha256.Size || len(e.SHA256) != 2*sha256.Size {
		return nil, "sha256", "give 64 hexadecimal digits, as \"parley key create\" and \"parley key hash\" print them"
	}
	if len(e.Scopes) == 0 {
		return nil, "scopes", "name one of " + scopeList() + ": a key without any may do nothing"
	}
	for _, name := range e.Scopes {
		s, ok := scopeOf(name)
		if !ok {
			return nil, "scopes", fmt.Sprintf("%q is no scope: take one of %s", name, scopeList())
		}
		k.scopes |= s
	}
	if e.Rooms != nil {
		if len(e.Rooms) == 0 {
			return nil, "rooms", "an empty list matches no room: name patterns, or leave the field out"
		}
		rooms, err := access.ParsePatterns(e.Rooms)
		if err != nil {
			return nil, "rooms", err.Error()
		}
		k.rooms = &rooms
	}
	if k.until, why = parseUntil(e.Until); why != "" {
		return nil, "until", why
	}
	return k, "", ""
}

func scopeList() string {
	names := make([]string, len(scopeNames))
	for i, known := range scopeNames {
		names[i] = known.name
	}
	return strings.Join(names, ", ")
}

// parseUntil reads a time, or a date, which means its beginning in UTC.
func parseUntil(text string) (until time.Time, why string) {
	if text == "" {
		return until, ""
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339Nano} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, ""
		}
	}
	return until, fmt.Sprintf("%q is no date: write 2027-06-01, or 2027-06-01T12:00:00Z", text)
}

const idRule = "an id has 1 to 64 letters, digits, points, hyphens and underscores"

func validID(id string) bool {
	for _, c := range []byte(id) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return id != "" && len(id) <= idBytesMax
}

// CreateKey makes a new key. The text is the only copy of the secret; the entry goes into a configuration, with scopes.
func CreateKey(id string) (text string, entry KeyEntry, err error) {
	if !validID(id) {
		return "", entry, fmt.Errorf("make a key named %q: %s", id, idRule)
	}
	var secret [secretBytes]byte
	rand.Read(secret[:]) // it never fails: the process ends before
	text = keyPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
	entry, err = EntryOf(text)
	return text, entry, err
}

// EntryOf makes the entry of an existing key, without scopes. The error does not repeat the key.
func EntryOf(text string) (KeyEntry, error) {
	id, ok := parseKey(text)
	if !ok {
		return KeyEntry{}, fmt.Errorf("read a key: it has the form pk_ID_SECRET, with a secret of %d characters as \"parley key create\" makes it", secretText)
	}
	sum := sha256.Sum256([]byte(text))
	return KeyEntry{ID: id, SHA256: hex.EncodeToString(sum[:])}, nil
}

// parseKey finds the id in a key. The secret has a fixed length, so that both may have underscores.
func parseKey(text string) (id string, ok bool) {
	at := len(text) - secretText - 1
	if at < len(keyPrefix) || text[:len(keyPrefix)] != keyPrefix || text[at] != '_' {
		return "", false
	}
	for _, c := range []byte(text[at+1:]) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return "", false
		}
	}
	id = text[len(keyPrefix):at]
	return id, validID(id)
}

// nobody takes the place of a key with an unknown id. Its sum is zero, and no text is known that has it.
var nobody = []*key{{}}

// find returns the key of a text, nil if there is none. An unknown id takes the same way, and so the same time, as a wrong
// secret.
func (k *Keys) find(text string) (found *key) {
	var whole [keyBytesMax]byte
	id, ok := parseKey(text)
	sum := sha256.Sum256(append(whole[:0], text[:min(len(text), keyBytesMax)]...))
	list := k.byID[id]
	if list == nil {
		list = nobody
	}
	for _, one := range list {
		if subtle.ConstantTimeCompare(one.sum[:], sum[:]) == 1 && ok && one.id != "" {
			found = one
		}
	}
	return found
}

// over reports whether the key's time has come.
func (k *key) over(now time.Time) bool { return !k.until.IsZero() && !now.Before(k.until) }

// may reports whether the key has a scope.
func (k *key) may(s scope) bool { return k.scopes&s == s }

// mayRoom reports whether a room is one of the key's.
func (k *key) mayRoom(room string) bool { return k.rooms == nil || k.rooms.Match(room) }
