package conformance

import (
	"errors"
	"fmt"
)

// The breaches that inflate reports.
var (
	errDeflateTorn   = errors.New("deflate: the block ends too early")
	errDeflateBroken = errors.New("deflate: no such block, code or length")
)

// inflate expands all deflate blocks in src, and appends the result to history. It refuses a reference further back than
// window octets, or than history reaches: the standard library's reader has a fixed window of 32 KB, and cannot detect a
// server that exceeds a smaller one. It is slow.
func inflate(history, src []byte, window int) ([]byte, error) {
	b := &bits{src: src}
	out := history
	var err error
	for b.left() {
		b.take(1) // BFINAL: another block may still follow (RFC 7692 §7.2.3.4)
		final := b.last == 1
		switch b.take(2) {
		case 0:
			out, err = inflateStored(out, b)
		case 1:
			out, err = inflateCodes(out, b, window, codes{&fixedLiterals, &fixedDistances})
		case 2:
			var literals, distances huffman
			if literals, distances, err = readCodes(b); err == nil {
				out, err = inflateCodes(out, b, window, codes{&literals, &distances})
			}
		default:
			err = errDeflateBroken
		}
		if err == nil && b.torn {
			err = errDeflateTorn
		}
		if err != nil {
			return out, err
		}
		if final {
			b.align()
		}
	}
	return out, nil
}

// bits reads from the lowest bit of each octet on. Past the end it reads zeros and sets torn.
//
// Owner: one inflate call.
type bits struct {
	src  []byte
	acc  uint32
	n    uint
	last uint32 // the latest result of take
	torn bool
}

func (b *bits) take(width uint) uint32 {
	for b.n < width {
		if len(b.src) == 0 {
			b.torn = true
			return 0
		}
		b.acc |= uint32(b.src[0]) << b.n
		b.src, b.n = b.src[1:], b.n+8
	}
	b.last = b.acc & (1<<width - 1)
	b.acc, b.n = b.acc>>width, b.n-width
	return b.last
}

func (b *bits) align() { b.acc, b.n = 0, 0 }

// left reports whether another block may begin. After a final block align has dropped the padding.
func (b *bits) left() bool { return b.n > 0 || len(b.src) > 0 }

func inflateStored(out []byte, b *bits) ([]byte, error) {
	b.align()
	length, check := b.take(16), b.take(16)
	if b.torn {
		return out, errDeflateTorn
	}
	if length != ^check&0xffff {
		return out, errDeflateBroken
	}
	if int(length) > len(b.src) {
		return out, errDeflateTorn
	}
	out = append(out, b.src[:length]...)
	b.src = b.src[length:]
	return out, nil
}

// huffman is a canonical code: how many codes there are of each length, and the symbols in code order.
type huffman struct {
	count   [16]int
	symbols []uint16
}

func newHuffman(lengths []byte) (h huffman) {
	for _, length := range lengths {
		h.count[length]++
	}
	h.count[0] = 0
	for length := byte(1); length < 16; length++ {
		for symbol, l := range lengths {
			if l == length {
				h.symbols = append(h.symbols, uint16(symbol))
			}
		}
	}
	return h
}

// next reads one symbol, a bit at a time: codes of one length are consecutive numbers, and the first code of a length is
// twice the successor of the last code of the length before.
func (h *huffman) next(b *bits) int {
	code, first, index := 0, 0, 0
	for length := 1; length < 16 && !b.torn; length++ {
		code |= int(b.take(1))
		if code-first < h.count[length] {
			return int(h.symbols[index+code-first])
		}
		index += h.count[length]
		first = (first + h.count[length]) << 1
		code <<= 1
	}
	return -1
}

var fixedLiterals, fixedDistances = func() (huffman, huffman) {
	var literals [288]byte
	var distances [30]byte
	for i := range literals {
		switch {
		case i < 144, i >= 280:
			literals[i] = 8
		case i < 256:
			literals[i] = 9
		default:
			literals[i] = 7
		}
	}
	for i := range distances {
		distances[i] = 5
	}
	return newHuffman(literals[:]), newHuffman(distances[:])
}()

// codeOrder is the order in which a dynamic block has the lengths of the code for its code lengths.
var codeOrder = [19]byte{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// readCodes reads the head of a dynamic block.
func readCodes(b *bits) (literals, distances huffman, err error) {
	nl, nd, nc := int(b.take(5))+257, int(b.take(5))+1, int(b.take(4))+4
	var lengths [286 + 32]byte
	for _, at := range codeOrder[:nc] {
		lengths[at] = byte(b.take(3))
	}
	codes := newHuffman(lengths[:19])
	clear(lengths[:])
	for i := 0; i < nl+nd; {
		symbol := codes.next(b)
		repeated, times := byte(0), 1
		switch {
		case symbol < 0 || symbol == 16 && i == 0 || nl > 286:
			return literals, distances, errDeflateBroken
		case symbol < 16:
			repeated = byte(symbol)
		case symbol == 16:
			repeated, times = lengths[i-1], 3+int(b.take(2))
		case symbol == 17:
			times = 3 + int(b.take(3))
		default:
			times = 11 + int(b.take(7))
		}
		if i+times > nl+nd {
			return literals, distances, errDeflateBroken
		}
		for ; times > 0; times-- {
			lengths[i] = repeated
			i++
		}
	}
	return newHuffman(lengths[:nl]), newHuffman(lengths[nl : nl+nd]), nil
}

// The smallest length and distance of each symbol, and how many bits follow with the difference.
var (
	lengthBase   = [29]int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthBits   = [29]uint{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distanceBase = [30]int{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073,
		4097, 6145, 8193, 12289, 16385, 24577}
	distanceBits = [30]uint{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// codes are the two codes of a block.
type codes struct{ literals, distances *huffman }

// inflateCodes expands a block up to its end mark.
func inflateCodes(out []byte, b *bits, window int, by codes) ([]byte, error) {
	literals, distances := by.literals, by.distances
	for {
		symbol := literals.next(b)
		switch {
		case symbol < 0 || symbol > 285:
			return out, errDeflateBroken
		case symbol < 256:
			out = append(out, byte(symbol))
			continue
		case symbol == 256:
			return out, nil
		}
		length := lengthBase[symbol-257] + int(b.take(lengthBits[symbol-257]))
		code := distances.next(b)
		if code < 0 || code > 29 {
			return out, errDeflateBroken
		}
		distance := distanceBase[code] + int(b.take(distanceBits[code]))
		if distance > window || distance > len(out) {
			return out, fmt.Errorf("deflate: a reference %d octets back, with %d known and a window of %d",
				distance, len(out), window)
		}
		for range length {
			out = append(out, out[len(out)-distance])
		}
	}
}
