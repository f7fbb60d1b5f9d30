/** A sentence for each code of a `ParleyError`. An application's server may have further ones. */
export const codes: Record<string, string> = {
  // The client's own.
  offline: "The client is not open, so nothing was sent.",
  dropped: "The connection ended before the answer: it is not known whether the server did it.",
  timeout: "No answer came in time: it is not known whether the server did it.",
  closed: "The client was closed.",
  left: "The client left the room.",
  gave_up: "The client has no attempts left.",
  no_token: "getToken gave no token.",
  taken_over: "A newer connection resumed the session.",
  disconnected: "The server ended the connection for good.",
  // The server's.
  invalid_json: "The message is not JSON.",
  invalid_message: "The message is not well formed.",
  unknown_type: "The server does not know messages of this type.",
  room_required: "The message names no room.",
  data_required: "The message has no data.",
  invalid_room: "No room can have this name.",
  room_full: "The room is full.",
  too_many_rooms: "The client is in too many rooms.",
  not_in_room: "The client is not in the room.",
  no_history: "The room keeps no history.",
  invalid_token: "The session is gone.",
  attempts_exhausted: "The session was resumed too often.",
  already_resumed: "The connection has already resumed a session.",
  auth_required: "The server demands an access token.",
  unauthorized: "The server does not accept the access token.",
  token_expired: "The access token has expired.",
  forbidden: "The access token does not allow it.",
  rate_limited: "The client sends too many messages.",
  overloaded: "The server has no place for the message now; nobody got it.",
  unavailable: "A part of the server is away; try again.",
  internal: "The server has failed.",
};

/** A sentence for each state of a client. */
export const states = {
  idle: "Nothing has been done yet.",
  connecting: "A connection is being made.",
  authenticating: "The server looks at the token, the session and the rooms.",
  open: "Messages come and go.",
  waiting: "The connection is lost; the next attempt follows.",
  closed: "The client has ended; connect() begins anew.",
};
