// Package fanout is the floor of rooms as they live on loops: a room numbers a message and posts one letter to every loop that
// has members, and each loop gives the frame to its part of the members. Here are also the ways into a room and out of it, the
// announcements of joins and leaves, the seats of limited rooms, and what workers know of each other's members.
//
// What it refuses to do: it knows no session, no handler of the application and no store; it never waits for another worker,
// and a message that has no place in a mailbox is refused as a whole.
//
// Start reading at rooms.go (what a connection and a loop have here), then publish.go and deliver.go (the way of a message),
// admission.go and leave.go (the way of a connection), and remotes.go (the other workers). Code here is loop-only unless its
// comment says otherwise.
package fanout
