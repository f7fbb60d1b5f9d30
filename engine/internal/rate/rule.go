package rate

// Rule is how often each connection may send messages of any kind. A message over it is refused, and refusals are strikes, of
// which a number ends the connection. Strikes are forgotten when the connection's bucket is full again: refusals in a row would
// be no measure, since a client that sends at twice the rate has every other message taken.
//
// Owner: immutable.
type Rule struct {
	pace    Pace
	strikes int // 0: never
}

// NewRule is the rule of a number of messages each second, of which burst may come at once, 0 for all; nil for no limit.
func NewRule(perSecond, burst, strikes int) *Rule {
	if perSecond == 0 {
		return nil
	}
	if burst == 0 {
		burst = perSecond
	}
	limit := Limit{PerSecond: float64(perSecond), Burst: burst}
	return &Rule{limit.Pace(), strikes}
}

// Verdict is the answer to a message.
type Verdict uint8

// The answers.
const (
	Passes  Verdict = iota
	Refused         // it is not carried out
	Struck          // nor is this one, and it is the strike that ends the connection
)

// Record is one connection's share of a rule. The zero value is a connection that has sent nothing.
//
// Owner: the connection's loop.
type Record struct {
	bucket  Bucket
	strikes uint32
}

// Take takes a message out. since and now are those of Bucket.Take.
func (r *Record) Take(by *Rule, since, now int64) Verdict {
	if r.bucket.Full(now) {
		r.strikes = 0
	}
	if r.bucket.Take(by.pace, since, now) {
		return Passes
	}
	if r.strikes++; by.strikes > 0 && int64(r.strikes) >= int64(by.strikes) {
		return Struck
	}
	return Refused
}

// Forget makes the record of a connection that has not sent for long the zero value, and reports whether it did.
func (r *Record) Forget(now int64) bool {
	if !r.bucket.Full(now) {
		return false
	}
	*r = Record{}
	return true
}
