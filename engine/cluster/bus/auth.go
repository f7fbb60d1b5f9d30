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
// HMAC-SHA256(secret, user name). A process with this password can act as that instance only; the secret stays with the
// supervisor and the bus.
func Password(secret []byte, instance ident.Worker) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(userName(instance)))
	return hex.EncodeToString(mac.Sum(nil))
}

// gate admits users with the right password, and lets each publish only as itself.
type gate struct{ secret []byte }

// Check implements server.Authentication.
func (g gate) Check(c server.ClientAuthentication) bool {
	name := c.GetOpts().Username
	digits, _ := strings.CutPrefix(name, "w")
	n, err := strconv.ParseUint(digits, 10, 16)
	instance := ident.On(0, uint16(n))
	// Other spellings are refused: w1 and w01 would be two users with one stream.
	if err != nil || instance == 0 || userName(instance) != name {
		return false
	}
	if !hmac.Equal([]byte(c.GetOpts().Password), []byte(Password(g.secret, instance))) {
		return false
	}
	c.RegisterUser(&server.User{Username: name, Permissions: permissions(instance)})
	return true
}

// buckets are the key-value buckets that the ledger makes and uses. The ledger follows the changes of one of them on
// ledgerChanged, where the server republishes them, and asks other workers for seats on ledgerWanted.
var buckets = []string{"sessions", "seats", "shared"}

const (
	ledgerWanted  = "ledger.wanted"
	ledgerChanged = "ledger.changed.>"
	responseTime  = 10 * time.Second
)

// permissions are the subjects in the package's comment, and JetStream for the ledger's buckets. They guard against our
// mistakes and against strangers on the machine; a malicious worker could still do harm through the ledger's buckets.
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
		// A worker may answer each request for seats once.
		Response: &server.ResponsePermission{MaxMsgs: 1, Expires: responseTime},
	}
}
