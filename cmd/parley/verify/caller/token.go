package caller

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
)

// Sign makes a JSON Web Token, signed with HS256. Claims that are no JSON are a mistake of the caller.
func Sign(secret []byte, claims map[string]any) string {
	text, _ := json.Marshal(claims)
	encode := base64.RawURLEncoding.EncodeToString
	head := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(text)
	sum := hmac.New(sha256.New, secret)
	sum.Write([]byte(head))
	return head + "." + encode(sum.Sum(nil))
}

// readSecret reads the file of a secret, as the server does: without the line's end.
func readSecret(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	text, _ = bytes.CutSuffix(text, []byte("\n"))
	return bytes.TrimSuffix(text, []byte("\r")), nil
}
