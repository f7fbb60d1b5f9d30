// Package pending is the floor on which a connection waits for an answer: of the application, the store, another worker or
// another loop.
//
// While it waits, its later messages wait in order, built-in ones and its close frame too. The waiting messages are bounded in
// bytes, and the answer has a deadline. A late answer no longer finds its pending on the connection and is dropped.
//
// If the peer ends or resets its stream meanwhile, the waiting messages are still carried out: until then the connection stays
// in its rooms, without a transport, for offload_timeout at the most.
//
// What it refuses to do: it does not know what is waited for, it holds no message without a bound, and it never waits itself.
//
// Start reading at pending.go; conn.go says how the floors lie upon each other. The package also has the pools on which code
// that may block runs.
package pending
