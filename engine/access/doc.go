// Package access decides what a client may do: it verifies tokens (JWT), keeps the keys that verify them, compiles rules
// and patterns of rooms, and remembers revoked tokens.
//
// The caller gives a token and the time, and gets claims or a [TokenError] that says which answer the client gets. With the
// claims and the rules, the caller asks one question for each act: may this user join, publish to, or list this room? An
// answer takes less than 150 ns and allocates nothing, so a loop may ask.
//
// Invariant: an algorithm never meets a key of another kind. A key's kind is fixed when the key is read; the header of a
// token only chooses among keys that fit the algorithm that it names, and the settings list these algorithms.
//
// [Guard] joins all of it with a server. What the package refuses to do otherwise: know connections, rooms or workers, make decisions about backends, sign tokens, or follow an
// address that a token names.
//
// Start reading in verify.go (a token's way), then claims.go, rules.go; keys.go and
// key_url.go have the keys, revoked.go has the revocations, and guard.go is where a server asks.
package access
