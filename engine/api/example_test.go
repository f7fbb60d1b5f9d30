package api_test

import (
	"fmt"
	"log"
	"net"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/api"
)

// A program serves the API beside its WebSocket clients.
func Example() {
	srv, err := engine.New(engine.Config{Host: "127.0.0.1", Port: -1})
	if err != nil {
		log.Fatal(err)
	}
	text, entry, err := api.CreateKey("shop") // once; the entry is kept, and the text is given to the backend
	if err != nil {
		log.Fatal(err)
	}
	entry.Scopes, entry.Rooms = []string{"publish"}, []string{"shop:*"}
	keys, err := api.CompileKeys([]api.KeyEntry{entry})
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	backends := api.New(srv, api.Options{Keys: keys})
	go backends.Serve(listener)
	fmt.Println(len(text), keys.Len())
	// Output: 51 1
}
