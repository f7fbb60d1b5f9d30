package api

import (
	"bytes"
	_ "embed"
)

// description is the OpenAPI document. It is a file of the repository, so that programs that make clients can read it without
// a server.
//
//go:embed openapi.json
var description []byte

func describe(*Server, *call) ([]byte, *problem) { return description, nil }

// Description returns the OpenAPI document of this version, as GET /openapi.json answers it. Any goroutine.
func Description() []byte { return bytes.Clone(description) }
