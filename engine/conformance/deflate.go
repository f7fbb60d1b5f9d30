package conformance

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// terms are the negotiated parameters (RFC 7692 §7.1). Bits are 15 if the answer has none.
//
// Owner: immutable once agreed.
type terms struct {
	serverBits, clientBits       int
	serverForgets, clientForgets bool // no context takeover
}

// syncTail is the end of every flush; senders remove it, and receivers append it (RFC 7692 §7.2.1, §7.2.2).
const syncTail = "\x00\x00\xff\xff"

// compressor makes the payloads of messages in one direction.
//
// Owner: one goroutine.
type compressor struct {
	window  int
	forgets bool
	out     bytes.Buffer
	writer  *flate.Writer
	filled  int // octets since the writer began its window
}

func newCompressor(windowBits int, forgets bool) *compressor {
	c := &compressor{window: 1 << windowBits, forgets: forgets}
	// BestSpeed, because the largest cases are about volume. It refers back across messages like the others.
	c.writer, _ = flate.NewWriter(&c.out, flate.BestSpeed)
	return c
}

// compress returns payload compressed, without the tail; the octets are valid until the next call. The standard library's
// window is always 32 KB: to keep a smaller one, the writer is reset whenever the window would be exceeded.
func (c *compressor) compress(payload []byte) []byte {
	c.out.Reset()
	if c.forgets {
		c.writer.Reset(&c.out)
		c.filled = 0
	}
	for {
		n := len(payload)
		if c.window < 1<<15 {
			if c.filled >= c.window {
				c.writer.Reset(&c.out)
				c.filled = 0
			}
			n = min(n, c.window-c.filled)
		}
		// Writing to a bytes.Buffer cannot fail.
		_, _ = c.writer.Write(payload[:n])
		_ = c.writer.Flush()
		payload, c.filled = payload[n:], c.filled+n
		if len(payload) == 0 {
			break
		}
	}
	return bytes.TrimSuffix(c.out.Bytes(), []byte(syncTail))
}

// decompressor expands the payloads of messages in one direction.
//
// Owner: one goroutine.
type decompressor struct {
	window  int
	forgets bool
	history []byte
	reader  io.ReadCloser
}

func newDecompressor(windowBits int, forgets bool) *decompressor {
	return &decompressor{window: 1 << windowBits, forgets: forgets, reader: flate.NewReader(nil)}
}

// decompress expands one message's payload.
func (d *decompressor) decompress(payload []byte) ([]byte, error) {
	if d.forgets {
		d.history = nil
	}
	whole := append(bytes.Clone(payload), syncTail...)
	var message []byte
	var err error
	if d.window < 1<<15 {
		var all []byte
		all, err = inflate(bytes.Clone(d.history), whole, d.window)
		message = all[len(d.history):]
	} else {
		message, err = d.readAll(whole)
	}
	if err != nil {
		return nil, err
	}
	d.history = append(d.history, message...)
	if extra := len(d.history) - d.window; extra > 0 {
		d.history = append([]byte(nil), d.history[extra:]...)
	}
	return message, nil
}

// readAll expands whole with the standard library's reader. A final block that is appended makes it stop; after a final
// block in the middle (RFC 7692 §7.2.3.4) it stops early, and is started again.
func (d *decompressor) readAll(whole []byte) ([]byte, error) {
	rest := bytes.NewReader(append(whole, "\x01\x00\x00\xff\xff"...))
	out := bytes.NewBuffer(bytes.Clone(d.history))
	for rest.Len() > 0 {
		dictionary := out.Bytes()[max(0, out.Len()-d.window):]
		if err := d.reader.(flate.Resetter).Reset(rest, bytes.Clone(dictionary)); err != nil {
			return nil, err
		}
		if _, err := io.Copy(out, io.LimitReader(d.reader, heardBytesMax)); err != nil {
			return nil, err
		}
	}
	return out.Bytes()[len(d.history):], nil
}

// agree compares the server's Sec-WebSocket-Extensions with our offer. agreed is nil if the server declined. An answer that
// no alternative of the offer allows is an error (RFC 7692 §7.1).
func agree(offer, answer string) (agreed *terms, err error) {
	if answer == "" {
		return nil, nil
	}
	if offer == "" {
		return nil, fmt.Errorf("server answers extension %q, which was not offered", answer)
	}
	if strings.Contains(answer, ",") {
		return nil, fmt.Errorf("server accepts more than one extension: %q", answer)
	}
	said, err := parameters(answer)
	if err != nil {
		return nil, fmt.Errorf("answer %q: %w", answer, err)
	}
	for _, alternative := range strings.Split(offer, ",") {
		asked, err := parameters(alternative)
		if err != nil {
			continue
		}
		if agreed, err = match(asked, said); err == nil {
			return agreed, nil
		}
	}
	return nil, fmt.Errorf("answer %q fits no alternative of offer %q", answer, offer)
}

// The parameters of permessage-deflate.
const (
	serverForgets = "server_no_context_takeover"
	clientForgets = "client_no_context_takeover"
	serverBits    = "server_max_window_bits"
	clientBits    = "client_max_window_bits"
)

// parameters reads the parameters of one extension; a parameter without a value has "".
func parameters(s string) (map[string]string, error) {
	fields := strings.Split(s, ";")
	if name := strings.TrimSpace(fields[0]); name != "permessage-deflate" {
		return nil, fmt.Errorf("no such extension: %q", name)
	}
	found := map[string]string{}
	for _, field := range fields[1:] {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		if _, twice := found[name]; twice {
			return nil, fmt.Errorf("%s occurs twice", name)
		}
		value = strings.Trim(value, `"`)
		switch name {
		case serverForgets, clientForgets:
			if value != "" {
				return nil, fmt.Errorf("%s has a value", name)
			}
		case serverBits, clientBits:
			if n, err := strconv.Atoi(value); value != "" && (err != nil || n < 8 || n > 15 || value[0] == '0') {
				return nil, fmt.Errorf("%s=%s is out of range", name, value)
			}
		default:
			return nil, fmt.Errorf("no such parameter: %q", name)
		}
		found[name] = value
	}
	return found, nil
}

var errTerms = errors.New("the answer does not fit this alternative")

// match are the terms of the answer said, if it fits the alternative asked.
func match(asked, said map[string]string) (*terms, error) {
	t := &terms{serverBits: 15, clientBits: 15}
	_, t.serverForgets = said[serverForgets]
	_, t.clientForgets = said[clientForgets]
	if _, wanted := asked[serverForgets]; wanted && !t.serverForgets {
		return nil, errTerms
	}
	if value, ok := said[serverBits]; ok {
		t.serverBits, _ = strconv.Atoi(value)
	}
	if value, wanted := asked[serverBits]; wanted {
		if most, _ := strconv.Atoi(value); t.serverBits > most || said[serverBits] == "" {
			return nil, errTerms
		}
	}
	if value, ok := said[clientBits]; ok {
		most, offered := asked[clientBits]
		if t.clientBits, _ = strconv.Atoi(value); !offered || value == "" {
			return nil, errTerms
		}
		if n, err := strconv.Atoi(most); err == nil && t.clientBits > n {
			return nil, errTerms
		}
	}
	if t.serverBits < 8 {
		return nil, errTerms
	}
	return t, nil
}
