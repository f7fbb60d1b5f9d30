// Package api is the HTTP API for backends: programs of the operator, each with a key, publish to rooms, users and connections,
// list them, and act on them.
//
// A request passes, in this order: the key's check ([Keys]), the table of routes, the reading of its body, the memory of
// idempotent requests, and the handler. The answer is JSON, a stream of lines, or a problem document [RFC 9457]. A message on a
// socket passes the key's check, the table and the handler. /openapi.json describes every request and answer; the tests hold all
// of them against it.
//
// What it refuses to do: serve browsers (there are no CORS fields), speak TLS or HTTP/2 (docs/decisions/http-api.md says why),
// and keep anything over a restart.
//
// Start reading at [New], then the table in routes.go.
package api
