package frame

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// An appended header is the same as gobwas/ws writes, with RSV1 for a compressed payload [RFC 7692 §6].
func TestHeaderAgreesWithGobwas(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 1 << 20} {
		var want bytes.Buffer
		ws.WriteHeader(&want, ws.Header{Fin: true, OpCode: ws.OpBinary, Length: int64(n)})
		if got := AppendHeader(nil, ws.OpBinary, n); !bytes.Equal(got, want.Bytes()) || len(got) != HeaderSize(n) {
			t.Errorf("%d: got %x, want %x", n, got, want.Bytes())
		}
		want.Reset()
		ws.WriteHeader(&want, ws.Header{Fin: true, Rsv: ws.Rsv(true, false, false), OpCode: ws.OpText, Length: int64(n)})
		if got := AppendCompressedHeader(nil, ws.OpText, n); !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%d compressed: got %x, want %x", n, got, want.Bytes())
		}
	}
}

// [RFC 6455 §7.4] [RFC 6455 §7.1.5] cases 7.3.*, 7.7.*, 7.9.*: which close frames are legal.
func TestParseClose(t *testing.T) {
	body := func(code int, reason string) []byte { return append([]byte{byte(code >> 8), byte(code)}, reason...) }
	if code, _, v := ParseClose(nil); code != ws.StatusNoStatusRcvd || v != Fine {
		t.Errorf("no body: %d, %v", code, v)
	}
	if _, _, v := ParseClose([]byte{3}); v != ShortClose {
		t.Errorf("one byte: %v", v)
	}
	if _, _, v := ParseClose(body(1000, "\xff")); v != InvalidUTF8 {
		t.Errorf("reason: %v", v)
	}
	legal := map[int]bool{1000: true, 1001: true, 1002: true, 1003: true, 1007: true, 1008: true, 1009: true,
		1010: true, 1011: true, 1012: true, 1013: true, 1014: true}
	for code := range 65536 {
		_, reason, v := ParseClose(body(code, "why"))
		want := legal[code] || code >= 3000 && code <= 4999
		if (v == Fine) != want || want && string(reason) != "why" {
			t.Errorf("%d: %v", code, v)
		}
	}
}

// [RFC 6455 §5.5.1] A close frame fits into 125 bytes, and its reason stays text.
func TestAppendClose(t *testing.T) {
	if got := AppendClose(nil, 0, "unsaid"); string(got) != "\x88\x00" {
		t.Errorf("no code: %q", got)
	}
	got := AppendClose(nil, 1000, strings.Repeat("é", 100))
	if len(got) > 2+125 || !ValidUTF8(got[4:]) || len(got) < 120 {
		t.Errorf("long reason: %d bytes, %q", len(got), got)
	}
	if _, _, v := ParseClose(got[2:]); v != Fine {
		t.Error(v)
	}
}

// Every violation has a code that may be sent, and a text that fits.
func TestViolations(t *testing.T) {
	for v := Fine + 1; v < violations; v++ {
		if !MayBeSent(v.Code()) || v.String() == "" || len(v.String()) > 123 {
			t.Errorf("violation %d: %d %q", v, v.Code(), v.String())
		}
	}
}

// The hot path really runs on gobwas/ws: its cipher unmasks, its opcodes and status codes are used.
func TestGobwasIsOnTheHotPath(t *testing.T) {
	calls := map[string]bool{}
	for _, name := range []string{"mask.go", "decoder.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "ws" {
					calls[s.Sel.Name] = true
				}
			}
			return true
		})
	}
	for _, need := range []string{"Cipher", "OpCode", "OpText", "OpContinuation", "MaxHeaderSize", "MaxControlFramePayloadSize"} {
		if !calls[need] {
			t.Errorf("decoding no longer uses ws.%s: use it, or change docs/decisions/gobwas.md and this test", need)
		}
	}
	big := make([]byte, cipherMin)
	unmask(big, [4]byte{1, 2, 3, 4}, 1)
	want := make([]byte, cipherMin)
	ws.Cipher(want, [4]byte{1, 2, 3, 4}, 1)
	if !bytes.Equal(big, want) {
		t.Error("unmask differs from ws.Cipher")
	}
}
