// Command backend calls Parley's HTTP API with the standard library alone.
//
//	go run ./docs/backend/go publish chat:1 'hello from Go'
//	go run ./docs/backend/go members chat:1
//	go run ./docs/backend/go token 42
//
// PARLEY_API_KEY is the key, as `parley key create` prints it; PARLEY_URL is where the API listens, by default
// http://127.0.0.1:9092; PARLEY_JWT_SECRET_FILE is the file that Parley's setting jwt_secret_file names.
//
// What it refuses to do: importing Parley, since a backend speaks HTTP only. Start reading at call.
package main

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// problem is a refusal of Parley's (RFC 9457). Programs look at Code ("room_full"); people read the rest.
type problem struct{ Code, Title, Detail string }

func (p *problem) Error() string { return p.Code + ": " + cmp.Or(p.Detail, p.Title) }

var client = &http.Client{Timeout: 5 * time.Second}

// call sends a request and decodes the answer. A body makes it a POST, nil a GET. If Parley refuses, the error wraps a *problem.
func call(path string, body, answer any) error {
	method, encoded := http.MethodGet, new(bytes.Buffer)
	if body != nil {
		method = http.MethodPost
		if err := json.NewEncoder(encoded).Encode(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequest(method, cmp.Or(os.Getenv("PARLEY_URL"), "http://127.0.0.1:9092")+path, encoded)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(os.Getenv("PARLEY_API_KEY")))
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		p := &problem{Code: "unknown", Title: response.Status}
		return errors.Join(json.NewDecoder(response.Body).Decode(p), p)
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

// publish sends data, any JSON, to all members of a room.
func publish(room string, data any) error {
	return call("/v1/publish", map[string]any{"room": room, "data": data}, new(struct{}))
}

// members lists a room, a line for each connection. The server gives it in pages; Next is where the following page begins.
func members(room string) (string, error) {
	var lines strings.Builder
	for query := (url.Values{"room": {room}}); ; {
		var page struct {
			Members []struct{ ID, User string }
			Next    string
		}
		if err := call("/v1/members?"+query.Encode(), nil, &page); err != nil {
			return "", err
		}
		for _, m := range page.Members {
			fmt.Fprintln(&lines, m.ID, cmp.Or(m.User, "-")) // a connection without a token has no user
		}
		if page.Next == "" {
			return strings.TrimSpace(lines.String()), nil
		}
		query.Set("after", page.Next)
	}
}

// token makes a token (HS256) by which a browser shows Parley which user it is, and what it may do. In a pattern of rooms *
// stands for any characters but ":". Do not build a pattern from what a user typed: a user called * would match all.
func token(user string, rights map[string][]string) (string, error) {
	secret, err := os.ReadFile(os.Getenv("PARLEY_JWT_SECRET_FILE"))
	if err != nil {
		return "", err
	}
	now := time.Now().Unix()
	claims, _ := json.Marshal(map[string]any{"sub": user, "iat": now, "exp": now + 900, "parley": rights}) // texts and numbers: no error
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, bytes.TrimRight(secret, "\r\n")) // the end of the line is not part of the secret
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil)), nil
}

func main() {
	said, err := "published", errors.New("usage: publish ROOM TEXT | members ROOM | token USER")
	switch args := os.Args[1:]; {
	case len(args) == 3 && args[0] == "publish":
		err = publish(args[1], map[string]string{"text": args[2]})
	case len(args) == 2 && args[0] == "members":
		said, err = members(args[1])
	case len(args) == 2 && args[0] == "token":
		said, err = token(args[1], map[string][]string{"join": {"chat:*"}, "publish": {"chat:*"}})
	}
	if err != nil {
		log.Fatal(err) // with exit code 1
	}
	fmt.Println(said)
}
