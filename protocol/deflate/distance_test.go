package deflate

// furthest decodes a deflate stream, plainly, and returns how far back its longest reference goes
// [RFC 1951 §3.2]. The standard library accepts references of any window.
func furthest(compressed []byte) int {
	s := &bitStream{data: append(append([]byte(nil), compressed...), messageEnd...)}
	far := 0
	for {
		final, kind := s.take(1), s.take(2)
		switch kind {
		case 0:
			s.at = (s.at + 7) &^ 7
			n := int(s.take(16))
			s.take(16)
			s.at += 8 * n
		case 1:
			var literal [288]uint8
			for i := range literal {
				switch {
				case i < 144:
					literal[i] = 8
				case i < 256:
					literal[i] = 9
				case i < 280:
					literal[i] = 7
				default:
					literal[i] = 8
				}
			}
			var distance [30]uint8
			for i := range distance {
				distance[i] = 5
			}
			far = max(far, s.block(literal[:], distance[:]))
		case 2:
			literal, distance := s.tables()
			far = max(far, s.block(literal, distance))
		}
		if final == 1 {
			return far
		}
	}
}

// bitStream reads bits, the lowest first.
type bitStream struct {
	data []byte
	at   int
}

func (s *bitStream) take(n int) (v uint32) {
	for i := range n {
		v |= uint32(s.data[s.at/8]>>(s.at%8)&1) << i
		s.at++
	}
	return v
}

// symbol reads one symbol of a canonical Huffman code.
func (s *bitStream) symbol(lengths []uint8) int {
	code, first, index := 0, 0, 0
	var counts [16]int
	for _, n := range lengths {
		counts[n]++
	}
	counts[0] = 0
	for n := 1; n <= 15; n++ {
		code |= int(s.take(1))
		if code-counts[n] < first {
			want := code - first
			for sym, length := range lengths {
				if int(length) == n {
					if want == 0 {
						return sym
					}
					want--
				}
			}
		}
		index += counts[n]
		first = (first + counts[n]) << 1
		code <<= 1
	}
	panic("no such code")
}

func (s *bitStream) tables() (literal, distance []uint8) {
	order := []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
	nl, nd, nc := int(s.take(5))+257, int(s.take(5))+1, int(s.take(4))+4
	var code [19]uint8
	for _, i := range order[:nc] {
		code[i] = uint8(s.take(3))
	}
	var all []uint8
	for len(all) < nl+nd {
		switch sym := s.symbol(code[:]); sym {
		case 16:
			last := all[len(all)-1]
			for range s.take(2) + 3 {
				all = append(all, last)
			}
		case 17:
			all = append(all, make([]uint8, s.take(3)+3)...)
		case 18:
			all = append(all, make([]uint8, s.take(7)+11)...)
		default:
			all = append(all, uint8(sym))
		}
	}
	return all[:nl], all[nl:]
}

func (s *bitStream) block(literal, distance []uint8) (far int) {
	for {
		sym := s.symbol(literal)
		switch {
		case sym < 256:
			continue
		case sym == 256:
			return far
		case sym >= 265 && sym < 285:
			s.take((sym - 261) / 4)
		}
		d := s.symbol(distance)
		if d < 2 {
			far = max(far, d+1)
			continue
		}
		extra := d/2 - 1
		far = max(far, 1+(2+d&1)<<extra+int(s.take(extra)))
	}
}
