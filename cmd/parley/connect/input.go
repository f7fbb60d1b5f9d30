package connect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// line is a line of the input, or why it cannot be sent.
type line struct {
	text string
	err  error
}

// readLines reads lines until the input ends. It does not skip one.
func readLines(from io.Reader, to chan<- line, done <-chan struct{}) {
	defer close(to)
	in := bufio.NewReaderSize(from, 64<<10)
	for {
		one, err := readLine(in)
		if one.text != "" || one.err != nil {
			select {
			case to <- one:
			case <-done:
				return
			}
		}
		if err != nil {
			return // a terminal that is gone is the end, too
		}
	}
}

// readLine reads a line, of which it keeps lineBytesMax at most.
func readLine(in *bufio.Reader) (one line, err error) {
	var text []byte
	for {
		var part []byte
		part, err = in.ReadSlice('\n')
		if len(text) <= lineBytesMax {
			text = append(text, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
	}
	one.text = strings.TrimRight(string(text), "\r\n")
	switch {
	case len(text) > lineBytesMax:
		one = line{err: fmt.Errorf("a line has more than %d bytes: it is not sent", lineBytesMax)}
	case !utf8.ValidString(one.text):
		one = line{err: errors.New("a line is not valid UTF-8: it is not sent")}
	}
	return one, err
}
