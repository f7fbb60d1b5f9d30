package access

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/parleyd/parley/protocol/pattern"
)

// ErrDamaged: bytes are not revocations that this version wrote, or not all of them are there.
var ErrDamaged = errors.New("revocations are damaged, or another version wrote them")

// A state is: the mark, the version, the number of records, the records, a checksum (CRC-32C, little endian) of all before. A
// record is: kind and flags, one byte each; the length of the name, the name, before, until, stamp. Numbers are unsigned
// varints. Records are sorted, each subject once, so that one state has one encoding.
const (
	revokedMark    = "parley-revoked"
	revokedVersion = 1
	flagLifted     = 1
	recordBytesMin = 6
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type record struct {
	subject
	revocation
}

func (a record) compare(b record) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), strings.Compare(a.name, b.name))
}

// sorted copies all records out.
func (r *Revocations) sorted() []record {
	r.mu.RLock()
	records := make([]record, 0, len(r.list))
	for s, v := range r.list {
		records = append(records, record{s, v})
	}
	r.mu.RUnlock()
	slices.SortFunc(records, record.compare)
	return records
}

// Encode writes the state, for the Merge of other workers. Any goroutine.
func (r *Revocations) Encode() []byte { return encode(r.sorted()) }

// EncodeParts writes the state in parts that each fit into a message of so many bytes; each part can be merged by itself. An
// empty state has one part. bytesMax is at least 512. Any goroutine.
func (r *Revocations) EncodeParts(bytesMax int) (parts [][]byte) {
	records := r.sorted()
	for {
		n, bytes := 0, len(encode(nil))+binary.MaxVarintLen64
		for n < len(records) {
			if bytes += len(records[n].append(nil)); n > 0 && bytes > bytesMax {
				break
			}
			n++
		}
		parts, records = append(parts, encode(records[:n])), records[n:]
		if len(records) == 0 {
			return parts
		}
	}
}

func encode(records []record) []byte {
	b := append([]byte(revokedMark), revokedVersion)
	b = binary.AppendUvarint(b, uint64(len(records)))
	for _, v := range records {
		b = v.append(b)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (a record) append(b []byte) []byte {
	var flags byte
	if a.lifted {
		flags = flagLifted
	}
	b = append(b, byte(a.kind), flags)
	b = binary.AppendUvarint(b, uint64(len(a.name)))
	b = append(b, a.name...)
	for _, n := range []int64{a.before, a.until, a.stamp} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// decode reads a state. It accepts exactly the bytes that encode writes.
func decode(b []byte) ([]record, error) {
	body, found := strings.CutPrefix(string(b), revokedMark)
	if !found || len(body) < 1+1+crc32.Size {
		return nil, damaged("the beginning or the end is missing")
	}
	if body[0] != revokedVersion {
		return nil, damaged(fmt.Sprintf("version %d is not known", body[0]))
	}
	end := len(b) - crc32.Size
	if crc32.Checksum(b[:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return nil, damaged("the checksum is wrong")
	}
	d := &reader{rest: body[1 : len(body)-crc32.Size]}
	count := d.number(RevocationsMax)
	if d.bad || int64(len(d.rest)) < count*recordBytesMin {
		return nil, damaged("there are fewer records than announced")
	}
	records := make([]record, 0, count)
	for range count {
		v := d.record()
		if n := len(records); d.bad || n > 0 && records[n-1].compare(v) >= 0 {
			return nil, damaged("a record is wrong")
		}
		records = append(records, v)
	}
	if d.rest != "" {
		return nil, damaged("there are more records than announced")
	}
	return records, nil
}

func damaged(how string) error { return fmt.Errorf("%w: %s", ErrDamaged, how) }

// reader takes a state apart; bad stays once it is set.
type reader struct {
	rest string
	bad  bool
}

// number takes a number from 0 to most, in its shortest form.
func (d *reader) number(most int64) int64 {
	n, length := binary.Uvarint([]byte(d.rest[:min(len(d.rest), binary.MaxVarintLen64)]))
	if length <= 0 || n > uint64(most) || length != len(binary.AppendUvarint(nil, n)) {
		d.bad = true
		return 0
	}
	d.rest = d.rest[length:]
	return int64(n)
}

func (d *reader) record() (v record) {
	if len(d.rest) < recordBytesMin {
		d.bad = true
		return v
	}
	v.kind, v.lifted = subjectKind(d.rest[0]), d.rest[1] == flagLifted
	known := v.kind < subjectKinds && d.rest[1] <= flagLifted
	d.rest = d.rest[2:]
	length := int(d.number(jtiBytesMax))
	if d.bad || length > len(d.rest) {
		d.bad = true
		return v
	}
	v.name, d.rest = strings.Clone(d.rest[:length]), d.rest[length:]
	v.before, v.until, v.stamp = d.number(secondsMax), d.number(secondsMax), d.number(stampMost)
	bytesMax := UserBytesMax
	if v.kind == ofID {
		bytesMax = jtiBytesMax
	}
	d.bad = d.bad || !known || pattern.CheckName(v.name, bytesMax) != nil
	return v
}
