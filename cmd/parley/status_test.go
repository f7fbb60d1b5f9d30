package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// parley status shows what the bus process keeps of rooms with history, and nothing where there are none.
func TestStatusOfRoomsWithHistory(t *testing.T) {
	for order, want := range map[string]string{
		`null`:                     "",
		`{"term":7,"followers":2}`: "",
		`{"term":7,"followers":2,"rooms":2,"messages":1,"memory":45000,"numbered":3}`: "\nthe bus has numbered 3 messages for rooms with history, and keeps 1 message of 2 rooms in 45 KB\n",
	} {
		var r report
		if err := json.Unmarshal([]byte(`{"stats":{"workers":[{"index":0}],"bus_process":{"state":"ready","order":`+order+`}}}`), &r); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := r.write(&out, false, time.Now()); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), "bus") || !strings.HasSuffix(out.String(), want) || (want == "") == strings.Contains(out.String(), "numbered") {
			t.Errorf("with %s it says\n%s", order, out.String())
		}
	}
}
