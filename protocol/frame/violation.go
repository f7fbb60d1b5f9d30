package frame

import "github.com/gobwas/ws"

// Violation says how a peer broke the protocol. It is deliberately no error: it costs no allocation, and all
// violations end the connection in one place. Zero means none.
type Violation uint8

// Violations.
const (
	Fine Violation = iota
	Unmasked
	ReservedBits
	ReservedOpcode
	FragmentedControl
	LongControl
	StrayContinuation
	InterruptedMessage
	LongLength
	HugeLength
	CompressedControl
	InvalidUTF8
	Damaged
	TooBig
	TooManyFragments
	ShortClose
	InvalidCloseCode
	NotReady // ours: the decoder was never reset
	violations
)

var violationTable = [violations]struct {
	code ws.StatusCode
	text string
}{
	Fine:               {0, ""},
	Unmasked:           {ws.StatusProtocolError, "frames of a client must be masked"},              // [RFC 6455 §5.1]
	ReservedBits:       {ws.StatusProtocolError, "a reserved bit is set"},                          // [RFC 6455 §5.2]
	ReservedOpcode:     {ws.StatusProtocolError, "the opcode is reserved"},                         // [RFC 6455 §5.2]
	FragmentedControl:  {ws.StatusProtocolError, "control frames must not be fragmented"},          // [RFC 6455 §5.5]
	LongControl:        {ws.StatusProtocolError, "control frames carry at most 125 bytes"},         // [RFC 6455 §5.5]
	StrayContinuation:  {ws.StatusProtocolError, "there is no message to continue"},                // [RFC 6455 §5.4]
	InterruptedMessage: {ws.StatusProtocolError, "a message began inside another"},                 // [RFC 6455 §5.4]
	LongLength:         {ws.StatusProtocolError, "the length is not encoded in the fewest bytes"},  // [RFC 6455 §5.2]
	HugeLength:         {ws.StatusProtocolError, "the length has its highest bit set"},             // [RFC 6455 §5.2]
	CompressedControl:  {ws.StatusProtocolError, "only a message's first frame may have RSV1 set"}, // [RFC 7692 §6.1]
	InvalidUTF8:        {ws.StatusInvalidFramePayloadData, "text is not valid UTF-8"},              // [RFC 6455 §8.1]
	Damaged:            {ws.StatusInvalidFramePayloadData, "compressed data is damaged"},
	TooBig:             {ws.StatusMessageTooBig, "the message is too big"},                      // [RFC 6455 §7.4.1]
	TooManyFragments:   {ws.StatusPolicyViolation, "the message has too many fragments"},        // [RFC 6455 §7.4.1]
	ShortClose:         {ws.StatusProtocolError, "a close frame's body has no room for a code"}, // [RFC 6455 §5.5.1]
	InvalidCloseCode:   {ws.StatusProtocolError, "the close code is not one that may be sent"},  // [RFC 6455 §7.4]
	NotReady:           {ws.StatusInternalServerError, "frames are not expected here"},
}

// Code is the close code for v.
func (v Violation) Code() ws.StatusCode { return violationTable[v].code }

// String is the reason in the close frame.
func (v Violation) String() string { return violationTable[v].text }
