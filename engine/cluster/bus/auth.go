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

// kind says what a user is: the first byte of its name, in front of its instance.
type kind byte

const (
	kindWorker    kind = 'w' // a worker, or the api process
	kindSequencer kind = 's'
)

// Password is the password of an instance, whose user name is "w" and its number: hex of
// HMAC-SHA256(secret, user name). A process with this password can act as that instance only; the secret stays with the
// supervisor and the bus.
func Password(secret []byte, instance ident.Worker) string {
	return password(secret, kindWorker, instance)
}

// SequencerPassword is the password of the sequencer, whose user name is "s" and its instance.
func SequencerPassword(secret []byte, instance ident.Worker) string {
	return password(secret, kindSequencer, instance)
}

func password(secret []byte, k kind, instance ident.Worker) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(userName(k, instance)))
	return hex.EncodeToString(mac.Sum(nil))
}

func userName(k kind, instance ident.Worker) string {
	return string(rune(k)) + strconv.Itoa(int(instance))
}

// gate admits users with the right password, and lets each publish only as itself.
type gate struct{ secret []byte }

// Check implements server.Authentication.
func (g gate) Check(c server.ClientAuthentication) bool {
	name := c.GetOpts().Username
	of, digits := kindWorker, strings.TrimPrefix(name, string(rune(kindWorker)))
	if digits == name {
		of, digits = kindSequencer, strings.TrimPrefix(name, string(rune(kindSequencer)))
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	instance := ident.On(0, uint16(n))
	// Other spellings are refused: w1 and w01 would be two users with one stream.
	if err != nil || instance == 0 || userName(of, instance) != name {
		return false
	}
	if !hmac.Equal([]byte(c.GetOpts().Password), []byte(password(g.secret, of, instance))) {
		return false
	}
	may := permissions(instance)
	if of == kindSequencer {
		may = sequencerPermissions(instance)
	}
	c.RegisterUser(&server.User{Username: name, Permissions: may})
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
		subject("o", instance),
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
			"p.*", "a.*." + me, "q.*." + me, "q.*.0", "r.*." + me, inboxPrefix(kindWorker, instance) + ".>",
			ledgerWanted, ledgerChanged,
		}},
		// A worker may answer each request for seats once.
		Response: &server.ResponsePermission{MaxMsgs: 1, Expires: responseTime},
	}
}

// sequencerPermissions are what the sequencer needs: it has a stream of its own, hears the followers, and nothing else. No worker
// can say anything in its place, since all members must see one order.
func sequencerPermissions(instance ident.Worker) *server.Permissions {
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			subject("p", instance), subject("a", instance) + ".*", subject("r", instance) + ".*",
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{
			"o.*", "q.*." + strconv.Itoa(int(instance)), "q.*.0", inboxPrefix(kindSequencer, instance) + ".>",
		}},
	}
}
