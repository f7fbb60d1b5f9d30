// Package interop plays independent clients (coder/websocket, gorilla/websocket, npm ws, Chromium) against the
// built server, in processes of their own. It holds tests only.
//
// What it refuses to do: importing the server. Start reading at server_test.go.
package interop
