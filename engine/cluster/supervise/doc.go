// Package supervise is the parent process of a server with several workers. It opens the listening sockets, starts the bus
// and the workers (the same binary in another role), restarts those that end, replaces those that are frozen, and shuts
// down in a bounded time. A ward is a process that the supervisor cares for: the bus or a worker.
//
// What it refuses to do: know the work of a worker or the bus, speak to a client, or hold state that connected clients
// would lose in a crash of the supervisor.
//
// Start reading at Supervisor.Run for the parent, and at Join for a ward; their messages are in message.go.
package supervise
