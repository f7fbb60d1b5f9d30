// Package supervise is the parent process of a server with several workers. It opens the listening sockets,
// starts the bus and the workers (the same binary, told its role), restarts those that end, replaces those
// that are frozen, and takes its leave in a bounded time. A ward is a process in its care: the bus or a worker.
//
// What it refuses to do: know what a worker or the bus does, speak to a client, or hold anything that a
// crash of its own would lose for those who are connected. It imports nothing of this project.
//
// Start reading at Supervisor.Run for the parent, and at Join for a ward; what they say to each other is in
// message.go.
package supervise
