package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// makeKey makes a key with scopes.
func makeKey(t testing.TB, id string, scopes ...string) (text string, entry KeyEntry) {
	t.Helper()
	text, entry, err := CreateKey(id)
	if err != nil {
		t.Fatal(err)
	}
	entry.Scopes = scopes
	return text, entry
}

func compile(t testing.TB, entries ...KeyEntry) *Keys {
	t.Helper()
	keys, err := CompileKeys(entries)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// A new key has 256 random bits, and its entry has the sum of the whole text and nothing else of it.
func TestCreateKey(t *testing.T) {
	form := regexp.MustCompile(`^pk_shop_[A-Za-z0-9_-]{43}$`)
	seen := map[string]bool{}
	for range 100 {
		text, entry := makeKey(t, "shop")
		if !form.MatchString(text) || seen[text] {
			t.Fatalf("%s: another form, or a second time", text)
		}
		seen[text] = true
		sum := sha256.Sum256([]byte(text))
		stored, err := json.Marshal(entry)
		if err != nil {
			t.Fatal(err)
		}
		if entry.SHA256 != hex.EncodeToString(sum[:]) || bytes.Contains(stored, []byte(text[len("pk_shop_"):])) {
			t.Errorf("%s for %s", stored, text)
		}
	}
	for _, id := range []string{"", "a b", "é", "a/b", strings.Repeat("a", 65)} {
		if _, _, err := CreateKey(id); err == nil {
			t.Errorf("%q: taken as an id", id)
		}
	}
}

// An entry is read from a file as the documents show it.
func TestEntriesInYAML(t *testing.T) {
	text := "- {id: shop, sha256: " + strings.Repeat("5f", 32) + ", scopes: [publish, read], rooms: [\"shop:**\"], until: 2027-06-01}\n"
	var entries []KeyEntry
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&entries); err != nil {
		t.Fatal(err)
	}
	k := compile(t, entries...).byID["shop"][0]
	if !k.may(scopePublish|scopeRead) || k.may(scopeManage) || !k.mayRoom("shop:1") || k.mayRoom("chat:1") {
		t.Errorf("%+v", k)
	}
	if end := time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC); k.over(end.Add(-1)) || !k.over(end) {
		t.Errorf("ends at %v", k.until)
	}
}

// An entry with a fault is refused, with its index and its field.
func TestEntryFaults(t *testing.T) {
	_, good := makeKey(t, "good", "all")
	change := func(f func(*KeyEntry)) KeyEntry { e := good; f(&e); return e }
	for _, row := range []struct {
		field, says string
		entry       KeyEntry
	}{
		{"id", "1 to 64", change(func(e *KeyEntry) { e.ID = "" })},
		{"id", "1 to 64", change(func(e *KeyEntry) { e.ID = "a:b" })},
		{"sha256", "64 hexadecimal", change(func(e *KeyEntry) { e.SHA256 = "" })},
		{"sha256", "64 hexadecimal", change(func(e *KeyEntry) { e.SHA256 = e.SHA256[1:] })},
		{"sha256", "64 hexadecimal", change(func(e *KeyEntry) { e.SHA256 += "00" })},
		{"sha256", "64 hexadecimal", change(func(e *KeyEntry) { e.SHA256 = "g" + e.SHA256[1:] })},
		{"scopes", "name one of publish", change(func(e *KeyEntry) { e.Scopes = nil })},
		{"scopes", `"write" is no scope`, change(func(e *KeyEntry) { e.Scopes = []string{"read", "write"} })},
		{"rooms", "matches no room", change(func(e *KeyEntry) { e.Rooms = []string{} })},
		{"rooms", "stars", change(func(e *KeyEntry) { e.Rooms = []string{"*a*b*c*d*e"} })},
		{"until", "2027-06-01", change(func(e *KeyEntry) { e.Until = "soon" })},
		{"sha256", "earlier entry", good},
	} {
		_, err := CompileKeys([]KeyEntry{good, row.entry})
		var wrong *EntryError
		if !errors.As(err, &wrong) || wrong.Index != 1 || wrong.Field != row.field || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%+v: %v, want %s: %s", row.entry, err, row.field, row.says)
		}
	}
}

// A key is found by its whole text only; several may be good at once, under one id too.
func TestFindKey(t *testing.T) {
	old, oldEntry := makeKey(t, "shop_1", "publish")
	fresh, freshEntry := makeKey(t, "shop_1", "all")
	other, otherEntry := makeKey(t, "b", "read")
	keys := compile(t, oldEntry, freshEntry, otherEntry)
	for text, want := range map[string]scope{old: scopePublish, fresh: scopeAll, other: scopeRead} {
		if k := keys.find(text); k == nil || k.scopes != want {
			t.Errorf("%s: found %+v", text, k)
		}
	}
	stranger, _ := makeKey(t, "b", "read")
	nobodys, _ := makeKey(t, "nobody", "read")
	for _, text := range []string{stranger, nobodys, "", "pk_", "pk_b", other[:len(other)-1], other + "A", "pk_b_" + strings.Repeat("A", 43),
		strings.ToUpper(other), " " + other, "pk__" + other[len("pk_b_"):], strings.Repeat("x", 1<<16)} {
		if k := keys.find(text); k != nil {
			t.Errorf("%.60q: found %s", text, k.id)
		}
	}
	if k := new(Keys).find(old); k != nil || keys.Len() != 3 {
		t.Errorf("no keys: found %+v; %d keys", k, keys.Len())
	}
}

// The entry of a key that exists is that of its making, and an error does not repeat the key.
func TestEntryOf(t *testing.T) {
	text, entry := makeKey(t, "a")
	entry.Scopes = nil
	if again, err := EntryOf(text); err != nil || fmt.Sprint(again) != fmt.Sprint(entry) {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := EntryOf(text[:len(text)-1]); err == nil || strings.Contains(err.Error(), text[5:20]) {
		t.Error(err)
	}
}

// An unknown id costs as much as a wrong secret: both are hashed and compared once.
func TestFindKeyAllocates(t *testing.T) {
	_, entry := makeKey(t, "a", "all")
	keys := compile(t, entry)
	wrong, _ := makeKey(t, "a")
	unknown, _ := makeKey(t, "b")
	for _, text := range []string{wrong, unknown} {
		if n := testing.AllocsPerRun(100, func() { keys.find(text) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func BenchmarkFindKey(b *testing.B) {
	text, entry := makeKey(b, "a", "all")
	keys := compile(b, entry)
	b.ReportAllocs()
	for b.Loop() {
		keys.find(text)
	}
}
