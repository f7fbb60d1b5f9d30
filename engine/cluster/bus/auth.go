package bus

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/parleyd/parley/protocol/ident"
)

// Password is the password of an instance, whose user name is "w" and its number: hex of
// HMAC-SHA256(secret, user name). Whoever knows it can be that instance and no other; the secret stays with
// the supervisor and the bus.
func Password(secret []byte, instance ident.Worker) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(userName(instance)))
	return hex.EncodeToString(mac.Sum(nil))
}

// gate lets in whoever has the password, and lets each publish only as itself.
type gate struct{ secret []byte }

// Check implements server.Authentication.
func (g gate) Check(c server.ClientAuthentication) bool {
	name := c.GetOpts().Username
	digits, _ := strings.CutPrefix(name, "w")
	n, err := strconv.ParseUint(digits, 10, 16)
	instance := ident.On(0, uint16(n))
	// The number has one spelling, or w1 and w01 would be two users with one stream.
	if err != nil || instance == 0 || userName(instance) != name {
		return false
	}
	if !hmac.Equal([]byte(c.GetOpts().Password), []byte(Password(g.secret, instance))) {
		return false
	}
	c.RegisterUser(&server.User{Username: name, Permissions: permissions(instance)})
	return true
}

// buckets are the key-value buckets that the ledger makes and uses; what is stored in one of them it follows by what the
// server republishes, and it asks other workers for seats on a subject of its own.
var buckets = []string{"sessions", "seats", "shared"}

const (
	ledgerWanted  = "ledger.wanted"
	ledgerChanged = "ledger.changed.>"
	responseTime  = 10 * time.Second
)

// permissions are what the package's doc says, and JetStream for the ledger's buckets. They guard against
// our mistakes and against strangers on the machine; a worker that is out to harm could still do so
// through a bucket of the ledger.
func permissions(instance ident.Worker) *server.Permissions {
	publish := []string{
		subject("p", instance),
		subject("q", instance) + ".*",
		subject("a", instance) + ".*",
		ledgerWanted,
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST",
	}
	for _, b := range buckets {
		stream := "KV_" + b
		publish = append(publish,
			"$KV."+b+".>",
			"$JS.API.*.*."+stream, "$JS.API.*.*."+stream+".>", // STREAM.CREATE, DIRECT.GET, CONSUMER.CREATE ...
			"$JS.API.*.*.*."+stream, "$JS.API.*.*.*."+stream+".>", // STREAM.MSG.GET, CONSUMER.MSG.NEXT ...
			"$JS.ACK."+stream+".>", "$JS.FC."+stream+".>",
		)
	}
	me := strconv.Itoa(int(instance))
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: []string{
			"p.*", "a.*." + me, "q.*." + me, "q.*.0", inboxPrefix(instance) + ".>",
			ledgerWanted, ledgerChanged,
		}},
		// Whoever was asked for seats may answer, once.
		Response: &server.ResponsePermission{MaxMsgs: 1, Expires: responseTime},
	}
}
