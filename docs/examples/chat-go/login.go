package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
)

// cookie is the name of the cookie that remembers a login.
const cookie = "chat"

var validName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,32}$`)

// logins remember who has logged in, in cookies that they sign: so they need no store. The key is new at each start, and so a
// restart logs everybody out.
type logins struct{ key []byte }

func newLogins() *logins {
	l := &logins{key: make([]byte, sha256.Size)}
	rand.Read(l.key) // it never fails: see crypto/rand
	return l
}

// signature proves that this program has written a name into a cookie.
func (l *logins) signature(name string) string {
	mac := hmac.New(sha256.New, l.key)
	mac.Write([]byte(name))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// user is the user that a cookie names.
func (l *logins) user(value string) (name string, ok bool) {
	name, signature, _ := strings.Cut(value, ".")
	return name, hmac.Equal([]byte(signature), []byte(l.signature(name)))
}

// userOf is the user of a request for a page.
func (l *logins) userOf(r *http.Request) (name string, ok bool) {
	c, err := r.Cookie(cookie)
	if err != nil {
		return "", false
	}
	return l.user(c.Value)
}

// handle answers the login. A check of a password stands here in a real chat: this one believes every name.
func (l *logins) handle(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	name := r.PostFormValue("name")
	if !validName.MatchString(name) {
		http.Error(w, "a name has 1 to 32 letters and digits", http.StatusBadRequest)
		return
	}
	// Strict: other sites cannot send requests with this cookie. Behind TLS set Secure, too.
	http.SetCookie(w, &http.Cookie{Name: cookie, Value: name + "." + l.signature(name), Path: "/", MaxAge: 86400,
		HttpOnly: true, SameSite: http.SameSiteStrictMode})
	w.WriteHeader(http.StatusNoContent)
}
