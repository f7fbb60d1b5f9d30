package engine

import "testing"

// What a worker that is gone had counted stays in the sum; what it had at its end does not.
func TestCountsOfTheGone(t *testing.T) {
	var sum Stats
	sum.AddCounts(Stats{Accepted: 3, Ended: map[string]uint64{"heartbeat": 2}, Connections: 5, Rooms: 4, RoomsCounted: 4, Sessions: 1,
		MaxConnections: 9, MemoryUsage: 7, Uptime: 8})
	if sum.Accepted != 3 || sum.Ended["heartbeat"] != 2 {
		t.Errorf("counts are lost: %+v", sum)
	}
	if sum.Connections+sum.Rooms+sum.RoomsCounted+sum.Sessions+sum.MaxConnections+int(sum.MemoryUsage)+int(sum.Uptime) != 0 {
		t.Errorf("the gone still have something: %+v", sum)
	}
}
