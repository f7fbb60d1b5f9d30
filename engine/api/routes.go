package api

import (
	"context"
	"net/http"
	"time"
)

// route says how a path is served. The table of routes is also what a batch knows, and what the description in openapi.json
// is tested against.
//
// Owner: immutable.
type route struct {
	path    string
	method  string
	open    bool  // no key is needed
	scope   scope // that the key must have; 0: any key will do
	body    func(s *Server) bound
	reads   fields[readRequest] // the parameters of a GET that has some
	lists   bool                // it may be answered by a stream of lines
	batched bool                // it may stand in a batch
	changes bool                // it changes more than what clients read: the log has it at the level of information
	status  int                 // of success; 0: 200
	run     func(s *Server, c *call) ([]byte, *problem)
	get     *route // of the same path, where that is served for GET as well; New sets it
}

var routes = []route{
	{path: "/v1/publish", method: http.MethodPost, scope: scopePublish, body: (*Server).publishBody, batched: true, run: publish},
	{path: "/v1/batch", method: http.MethodPost, body: (*Server).batchBody}, // New sets run: a batch itself looks into the table
	{path: "/v1/join", method: http.MethodPost, scope: scopeManage, body: (*Server).smallBody, batched: true, changes: true, run: join},
	{path: "/v1/leave", method: http.MethodPost, scope: scopeManage, body: (*Server).smallBody, batched: true, changes: true, run: leave},
	{path: "/v1/disconnect", method: http.MethodPost, scope: scopeManage, body: (*Server).smallBody, batched: true, changes: true, run: disconnect},
	{path: "/v1/attributes", method: http.MethodPost, scope: scopeManage, body: (*Server).smallBody, batched: true, changes: true, run: attributes},
	{path: "/v1/rooms/create", method: http.MethodPost, scope: scopeManage, body: (*Server).smallBody, batched: true, changes: true, status: http.StatusCreated, run: createRoom},
	{path: "/v1/rooms/update", method: http.MethodPost, scope: scopeManage, body: (*Server).smallBody, batched: true, changes: true, run: updateRoom},
	{path: "/v1/rooms/delete", method: http.MethodPost, scope: scopeManage, body: (*Server).smallBody, batched: true, changes: true, run: deleteRoom},
	{path: "/v1/sessions/end", method: http.MethodPost, scope: scopeManage, body: (*Server).smallBody, batched: true, changes: true, run: endSessions},
	{path: "/v1/tokens/revoke", method: http.MethodPost, scope: scopeTokens, body: (*Server).smallBody, batched: true, changes: true, run: revoke},
	{path: "/v1/tokens/revoke", method: http.MethodGet, scope: scopeTokens, reads: parameters("after", "limit"), lists: true, run: lists(revocations)},
	{path: "/v1/tokens/unrevoke", method: http.MethodPost, scope: scopeTokens, body: (*Server).smallBody, batched: true, changes: true, run: unrevoke},
	{path: "/v1/connections", method: http.MethodGet, scope: scopeRead, reads: parameters("user", "room", "address", "attribute", "sort", "after", "limit"), lists: true, run: lists(connections)},
	{path: "/v1/connection", method: http.MethodGet, scope: scopeRead, reads: parameters("id"), run: reads(connection, checkID)},
	{path: "/v1/users", method: http.MethodGet, scope: scopeRead, reads: parameters("user", "after", "limit"), lists: true, run: lists(users)},
	{path: "/v1/rooms", method: http.MethodGet, scope: scopeRead, reads: parameters("match", "after", "limit"), lists: true, run: lists(roomList)},
	{path: "/v1/room", method: http.MethodGet, scope: scopeRead, reads: parameters("room"), run: reads(room, checkRoom)},
	{path: "/v1/members", method: http.MethodGet, scope: scopeRead, reads: parameters("room", "after", "limit"), lists: true, run: lists(memberList)},
	{path: "/v1/history", method: http.MethodGet, scope: scopeRead, reads: parameters("room", "since_seq", "before_seq", "epoch", "limit"), run: history},
	{path: "/v1/stats", method: http.MethodGet, scope: scopeRead, reads: parameters(), run: reads(stats, checkAll)},
	{path: "/v1/workers", method: http.MethodGet, scope: scopeRead, reads: parameters(), run: reads(workers, checkAll)},
	{path: "/v1/config", method: http.MethodGet, scope: scopeRead, reads: parameters(), run: reads(settings, checkAll)},
	{path: "/v1/drain", method: http.MethodPost, scope: scopeOperate, body: (*Server).smallBody, batched: true, changes: true, status: http.StatusAccepted, run: drain},
	{path: "/v1/socket", method: http.MethodGet}, // ServeHTTP hands it to serveSocket
	{path: "/v1/health", method: http.MethodGet, open: true, run: health},
	{path: "/openapi.json", method: http.MethodGet, open: true, run: describe},
}

func (s *Server) publishBody() bound { return s.publishMax }

func (s *Server) smallBody() bound {
	return bound{envelopeBytes, "a request of this kind has at most 64 KiB"}
}

func (s *Server) batchBody() bound {
	return bound{batchBytesMax, "a batch has at most 4 MiB: send several"}
}

// call is one operation that is carried out for a key: a request, or a part of a batch.
//
// Owner: one goroutine.
type call struct {
	object  // what is asked; empty for GET
	ctx     context.Context
	now     time.Time
	route   *route
	key     *key    // nil for an open route
	request string  // the request's id
	sent    bool    // it has sent what the bus may not have yet
	lines   bool    // the client accepts a stream of lines
	waits   bool    // it waits for a place among those who ask workers
	stream  *stream // the answer, where it is a stream
	publish publishRequest
}

// carryOut checks the key's right, runs the operation and logs it.
func (s *Server) carryOut(c *call) ([]byte, *problem) {
	if c.key != nil && !c.key.may(c.route.scope) {
		return nil, &problem{code: forbidden, detail: "the key " + c.key.id + " lacks the scope " + c.route.scope.String()}
	}
	result, wrong := c.route.run(s, c)
	if c.route.changes {
		outcome := "ok"
		if wrong != nil {
			outcome = wrong.code.String()
		}
		s.log.Info("api action", "do", c.route.path, "key", c.key.id, "request", c.request, "outcome", outcome)
	}
	return result, wrong
}
