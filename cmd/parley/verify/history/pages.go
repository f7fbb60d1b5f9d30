package history

import "fmt"

// Pages of a history, which members ask for.

const pageBytesMax = 256 << 10

// Page checks a part of a history that was asked for. read reads one of its messages.
func (r *Reader) Page(room *Room, a *Asked, m *Told, read func(text []byte) (*Told, error)) {
	b := r.book
	b.Checked("pages")
	wrong := func(kind, format string, args ...any) {
		room.found(Finding{Kind: kind, By: r}, "asks for the history of %s (limit %d%s) and is told %d to %d, %d messages: %s",
			room.name, a.Limit, a.Append(nil), m.Low, m.Top, len(m.Messages), fmt.Sprintf(format, args...))
	}
	if m.Epoch == "" || m.Low == 0 || m.Low > m.Top+1 || m.Top+1-m.Low > uint64(b.Messages) || len(m.Messages) > a.Limit {
		wrong("replay", "no such part, of at most %d messages", b.Messages)
		return
	}
	h := room.chronicleOf(m.Epoch, r)
	if b.Exact && a.of == h && m.Top < a.top {
		wrong("replay", "a client knew of number %d when it asked", a.top)
	}
	h.reach(m.Top)
	if b.Exact { // a worker has what its members needed so far: its low may be higher
		r.notKept(h, m.Low-1, m.Top, "asks for the history, which does not have it")
	}
	got, bytes := span{}, 0
	for _, text := range m.Messages {
		x, err := read(text)
		if err != nil || x.Seq == nil || got.To != 0 && *x.Seq != got.To+1 || *x.Seq < m.Low || *x.Seq > m.Top || x.Epoch != m.Epoch {
			wrong("replay", "behind %d comes %.100q", got.To, text)
			return
		}
		if got.From == 0 {
			got.From = *x.Seq
		}
		got.To = *x.Seq
		bytes += len(text)
		r.compare(h, got.To, x)
	}
	if a.Since == nil && !m.More && got.From > 0 {
		r.notKept(h, got.From-1, m.Top, "asks for the history and is told that there are no more")
	}
	switch {
	case bytes > pageBytesMax && len(m.Messages) > 1:
		wrong("replay", "they have %d bytes", bytes)
	case h.aged(got.From, a.At):
		wrong("replay", "number %d was older than %v when it asked", got.From, b.Age)
	}
	judgePage(a, m, got, wrong)
}

// judgePage checks that a part is the one that was asked for. got is the zero span if it has no messages.
func judgePage(a *Asked, m *Told, got span, wrong func(kind, format string, args ...any)) {
	missing, none := spanOf(m.Missing), got == span{}
	at := a.Since
	if at == nil {
		at = a.Before
	}
	switch {
	case at != nil && at.Epoch != m.Epoch:
		if !m.Gap {
			wrong("gap", "the position is of another epoch, and it is told no gap")
		}
	case a.Since != nil:
		begin := max(at.Seq+1, m.Low)
		if m.Gap != (begin > at.Seq+1) || m.Gap && missing != (span{at.Seq + 1, m.Low - 1}) {
			wrong("gap", "it is told gap %v, missing %v", m.Gap, missing)
		}
		if none != (begin > m.Top) || !none && got.From != begin || m.More != (!none && got.To < m.Top) {
			wrong("replay", "it has the messages %d to %d, more: %v", got.From, got.To, m.More)
		}
	default:
		end := m.Top
		if a.Before != nil {
			end = min(max(at.Seq, m.Low)-1, end)
		}
		if none != (end < m.Low) || !none && (got.To != end || m.More != (got.From > m.Low)) {
			wrong("replay", "it has the messages %d to %d, more: %v", got.From, got.To, m.More)
		}
	}
}
