package conformance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
)

// corpus is a text or a run of octets. Rounds cut their messages out of it, one after the other, and start again at its
// end. The public suite's five files are not ours to ship; these are made from a seed, of the same kinds and about the same
// sizes.
//
// Owner: immutable once made.
type corpus struct {
	title string
	kind  kind
	make  func() string

	once   sync.Once
	octets string
	points []rune // of a text, which is cut between code points
}

// fill makes the corpus on first use: most runs are filtered and need none.
func (c *corpus) fill() {
	c.octets = c.make()
	if c.kind == text {
		c.points = []rune(c.octets)
	}
}

// cut is message number n of size octets, or of size code points if the corpus is text.
func (c *corpus) cut(n, size int) []byte {
	c.once.Do(c.fill)
	if c.kind == text {
		return []byte(string(around(c.points, n*size, size)))
	}
	return around([]byte(c.octets), n*size, size)
}

// around is size elements of all from start on; after the last element follows the first.
func around[E any](all []E, start, size int) []E {
	out := make([]E, 0, size)
	for len(out) < size {
		at := (start + len(out)) % len(all)
		out = append(out, all[at:min(len(all), at+size-len(out))]...)
	}
	return out
}

var (
	stars    = &corpus{title: "stars", kind: text, make: func() string { return strings.Repeat("*", 4096) }}
	octetsFE = &corpus{title: "octets", kind: binaryMessage, make: func() string { return strings.Repeat("\xfe", 4096) }}

	jsonCorpus    = &corpus{title: "JSON", kind: text, make: makeJSON}
	pictureCorpus = &corpus{title: "a grey picture", kind: binaryMessage, make: makePicture}
	dramaCorpus   = &corpus{title: "German verse", kind: binaryMessage, make: makeDrama}
	pageCorpus    = &corpus{title: "HTML", kind: text, make: makePage}
	paperCorpus   = &corpus{title: "a paper with packed pictures", kind: binaryMessage, make: makePaper}
)

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x5eed)) }

// word draws a word: a few are frequent and many are rare, as in a language.
func word(r *rand.Rand) string {
	list := [...]string{
		"und", "der", "die", "ich", "nicht", "das", "ein", "zu", "ist", "es", "mit", "so", "wie", "dem", "auf", "Geist",
		"Welt", "Leben", "Herz", "süß", "größer", "Mühe", "schön", "Teufel", "Himmel", "Erde", "Licht", "Nacht", "Wahn",
		"Kräfte", "Höhen", "Tür", "Spiegel", "Zauber", "Stunde", "Augenblick", "verweile", "Gretchen", "Wagner", "Pudel",
	}
	return list[int(math.Pow(r.Float64(), 2.2)*float64(len(list)))]
}

func makeJSON() string {
	r, b := seeded(1), &strings.Builder{}
	for b.Len() < 194<<10 {
		fmt.Fprintf(b, `{"id":%d,"name":"%s %s","price":%.2f,"tags":["%s","%s"],"note":"%s → %s","active":%t},`+"\n",
			r.IntN(1e6), word(r), word(r), r.Float64()*1000, word(r), word(r), word(r), word(r), r.IntN(2) == 0)
	}
	return b.String()
}

// makePicture is 512 lines of 512 greys: waves with noise in the lowest bits, which hardly shrink.
func makePicture() string {
	r, b := seeded(2), &strings.Builder{}
	for y := range 512 {
		for x := range 512 {
			wave := 128 + 90*math.Sin(float64(x)/37)*math.Cos(float64(y)/53)
			b.WriteByte(byte(int(wave) + r.IntN(8)))
		}
	}
	return b.String()
}

func makeDrama() string {
	r, b := seeded(3), &strings.Builder{}
	for b.Len() < 222<<10 {
		if r.IntN(8) == 0 {
			b.WriteString("\n" + strings.ToUpper(word(r)) + ":\n")
		}
		for range 4 + r.IntN(5) {
			b.WriteString(word(r) + " ")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func makePage() string {
	r, b := seeded(4), &strings.Builder{}
	for b.Len() < 263<<10 {
		fmt.Fprintf(b, "<div class=\"row r%d\"><a href=\"/%s/%d.html\">%s %s</a>&nbsp;<span>%s — 漢字 😀</span></div>\n",
			r.IntN(9), word(r), r.IntN(1e5), word(r), word(r), word(r))
	}
	return b.String()
}

// makePaper alternates between text and noise, so that stored blocks and Huffman blocks take turns.
func makePaper() string {
	r, b := seeded(5), &strings.Builder{}
	for n := 0; b.Len() < 1<<20; n++ {
		fmt.Fprintf(b, "%d 0 obj\n<< /Length %d /Title (%s) >>\nstream\n", n, r.IntN(1e5), word(r))
		for range 200 + r.IntN(4000) {
			b.WriteByte(byte(r.Uint32()))
		}
		b.WriteString("\nendstream\nendobj\n")
		for range r.IntN(400) {
			b.WriteString(word(r) + " ")
		}
	}
	return b.String()
}
