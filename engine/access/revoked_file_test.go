package access

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sealed gives any bytes the mark, and a checksum that is right, so that the records behind it are looked at.
func sealed(body []byte) []byte {
	b := append([]byte(revokedMark), body...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func saved(t *testing.T, r *Revocations, path string) {
	t.Helper()
	if err := r.Save(path); err != nil {
		t.Fatal(err)
	}
}

// loads wants a file to give so many revocations.
func loads(t *testing.T, path string, want int) error {
	t.Helper()
	var r Revocations
	err := r.Load(path, moment)
	if r.Len() != want {
		t.Errorf("%d revocations, want %d (%v)", r.Len(), want, err)
	}
	return err
}

// What is saved is loaded, by its owner alone, and what has expired is not.
func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked")
	if err := loads(t, path, 0); err != nil {
		t.Errorf("no file: %v", err)
	}
	r := filled(t, 10)
	saved(t, r, path)
	if err := loads(t, path, 10); err != nil {
		t.Error(err)
	}
	if f, err := os.Stat(path); err != nil || f.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", f.Mode(), err)
	}
	var late Revocations
	if err := late.Load(path, moment.Add(UserKept)); err != nil || late.Len() != 0 {
		t.Errorf("%v, %d", err, late.Len())
	}
	if err := r.Save(filepath.Join(path, "below a file")); err == nil {
		t.Error("saved below a file")
	}
	if err := loads(t, t.TempDir(), 0); err == nil {
		t.Error("a folder was loaded")
	}
}

// A file that is torn at any byte, or garbage, is an error that names it, and the copy before it is loaded. Saving again keeps
// that copy until there are two good ones, and the damaged file for the operator.
func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked")
	r := filled(t, 3)
	saved(t, r, path)
	change, err := r.RevokeID("newest", moment.Add(time.Hour), moment)
	must(t, change, err)
	saved(t, r, path)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n := range good {
		write(string(good[:n]))
		if err := loads(t, path, 3); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
	write("garbage")
	saved(t, r, path)
	if text, err := os.ReadFile(path + damagedSuffix); err != nil || string(text) != "garbage" {
		t.Errorf("%q, %v", text, err)
	}
	if err := loads(t, path, 4); err != nil {
		t.Error(err)
	}
	write("garbage")
	if err := loads(t, path, 3); !errors.Is(err, ErrDamaged) {
		t.Errorf("the good copy is lost: %v", err)
	}
	if err := os.WriteFile(path+formerSuffix, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := loads(t, path, 0); !errors.Is(err, ErrDamaged) || strings.Count(err.Error(), path) != 2 {
		t.Errorf("both are damaged: %v", err)
	}
}

// A process that dies between the steps of saving loses nothing.
func TestSaveCutShort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked")
	r := filled(t, 3)
	saved(t, r, path)
	if err := os.WriteFile(path+partSuffix, r.Encode()[:10], 0o600); err != nil { // it died while it wrote
		t.Fatal(err)
	}
	if err := loads(t, path, 3); err != nil {
		t.Error(err)
	}
	if err := os.Rename(path, path+formerSuffix); err != nil { // it died between the two renames
		t.Fatal(err)
	}
	if err := loads(t, path, 3); err != nil {
		t.Error(err)
	}
	saved(t, r, path)
	if err := loads(t, path, 3); err != nil {
		t.Error(err)
	}
}

// Bytes with a right checksum are still held against the form.
func TestDecodeIsStrict(t *testing.T) {
	one := (&record{subject{ofUser, "u"}, revocation{before: 1, until: 2, stamp: 3}}).append(nil)
	two := (&record{subject{ofID, "u"}, revocation{until: 2, stamp: 3}}).append(nil)
	state := func(version, count byte, records ...[]byte) []byte {
		body := []byte{version, count}
		for _, r := range records {
			body = append(body, r...)
		}
		return sealed(body)
	}
	if records, err := decode(state(1, 2, one, two)); err != nil || len(records) != 2 {
		t.Fatal(err)
	}
	bent := func(at int, b byte) []byte {
		changed := append([]byte(nil), one...)
		changed[at] = b
		return changed
	}
	for want, b := range map[string][]byte{
		"version 2":         state(2, 0),
		"fewer":             state(1, 3, one, two),
		"more records":      state(1, 1, one, two),
		"a record is wrong": state(1, 2, two, one), // not sorted
		"record is wrong":   state(1, 2, one, one),
		"is wrong":          state(1, 1, bent(0, 2)), // the kind
		"wrong":             state(1, 1, bent(1, 2)), // the flags
		"a record":          state(1, 1, bent(2, 200)),
		"record is":         state(1, 1, bent(3, 0)), // a control character
		"record":            state(1, 1, bent(4, 0x80)),
		"fewer records":     sealed([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}),
	} {
		if _, err := decode(b); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", b, err, want)
		}
	}
}
