'use strict';
// A chat in the seed's messages: nothing but new WebSocket and JSON.

const $ = (id) => document.getElementById(id);
const log = $('log');
const rooms = new Set(); // that we are in
let ws = null;
let me = null;
let reconnectToken = null; // from the server: restores rooms after a drop
let oldToken = null;       // the one to show on the next connection
let retries = 0;
let port = 0;

function show(kind, ...parts) {
  const p = document.createElement('p');
  p.className = kind;
  p.append(...parts);
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(p);
  while (log.childElementCount > 500) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// who is a name that can be clicked to write to it.
function who(id) {
  const b = document.createElement('b');
  b.textContent = id === me ? 'you' : id.slice(-6);
  b.title = id;
  b.onclick = () => { $('to').value = id; $('text').focus(); };
  return b;
}

function state(word, kind) {
  $('state').textContent = word;
  $('state').className = 'state ' + kind;
  $('send').disabled = $('join').disabled = $('leave').disabled = $('cut').disabled = kind !== 'open';
}

function send(message) {
  if (ws && ws.readyState === WebSocket.OPEN) ws.send(JSON.stringify(message));
}

function connect() {
  state('connecting', '');
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  ws = new WebSocket(`${scheme}://${location.hostname}:${port}/`);
  const mine = ws;
  ws.onopen = () => {
    retries = 0;
    if (oldToken) send({ type: 'reconnect', token: oldToken });
  };
  ws.onmessage = (event) => { if (mine === ws) receive(JSON.parse(event.data)); };
  ws.onclose = (event) => {
    if (mine !== ws) return;
    dropped(event.code, event.reason);
  };
}

function dropped(code, reason) {
  ws = null;
  oldToken = reconnectToken || oldToken;
  reconnectToken = null;
  const wait = Math.min(1000 * 2 ** retries++, 15000) * (0.5 + Math.random() / 2);
  state('disconnected', 'down');
  show('note', `Connection lost (${code}${reason ? ' ' + reason : ''}); trying again in ${(wait / 1000).toFixed(1)} s.`);
  setTimeout(connect, wait);
}

const handlers = {
  connected(m) {
    me = m.connection_id;
    $('me').textContent = me;
    state('connected', 'open');
    if (!oldToken) send({ type: 'join', room: $('room').value });
  },
  reconnect_token(m) {
    reconnectToken = m.token;
  },
  reconnected(m) {
    oldToken = null;
    rooms.clear();
    m.rooms.forEach((r) => rooms.add(r));
    show('note', `Session resumed; back in ${m.rooms.join(', ') || 'no room'}.`);
    for (const lost of m.lost || []) show('error', `Could not get back into ${lost.room}: ${lost.code}.`);
  },
  joined(m) {
    rooms.add(m.room);
    $('members').textContent = `${m.room}: ${m.members} ${m.members === 1 ? 'member' : 'members'}`;
    show('note', `Joined ${m.room}, ${m.members} there.`);
  },
  left(m) {
    rooms.delete(m.room);
    $('members').textContent = '';
    show('note', `Left ${m.room}.`);
  },
  member_joined(m) { show('note', who(m.connection_id), ` joined ${m.room}`); },
  member_left(m) { show('note', who(m.connection_id), ` left ${m.room}`); },
  chat(m) { show('chat', who(m.from), ` in ${m.room}: ${m.text}`); },
  broadcast(m) { show('chat', who(m.from), ` in ${m.room}: ${JSON.stringify(m.data)}`); },
  private(m) { show('private', who(m.from), ` to you: ${m.text}`); },
  private_sent(m) { if (!m.delivered) show('error', 'Nobody with that id is connected.'); },
  chat_sent() {},
  ping() { send({ type: 'pong' }); },
  error(m) {
    if (m.code === 'invalid_token' || m.code === 'attempts_exhausted') {
      oldToken = null;
      send({ type: 'join', room: $('room').value });
      show('note', 'The old session is gone; starting afresh.');
      return;
    }
    show('error', `${m.code}: ${m.message}`);
  },
};

function receive(message) {
  const handler = handlers[message.type];
  if (handler) handler(message);
  else show('note', JSON.stringify(message));
}

$('joining').onsubmit = (event) => {
  event.preventDefault();
  send({ type: 'join', room: $('room').value });
};
$('leave').onclick = () => send({ type: 'leave', room: $('room').value });
$('saying').onsubmit = (event) => {
  event.preventDefault();
  const text = $('text').value;
  const to = $('to').value.trim();
  if (!text) return;
  if (to) {
    send({ type: 'private', to, text });
    show('private', 'you to ', who(to), `: ${text}`);
  } else {
    send({ type: 'chat', room: $('room').value, text });
  }
  $('text').value = '';
};
// Cutting forgets the socket without a close: the server finds a half-open connection, and the session is
// taken over from it.
$('cut').onclick = () => dropped(1006, 'cut by you');

fetch('server.json').then((r) => r.json()).then((s) => {
  port = s.port;
  connect();
});

// Where several processes serve, the page says how many connections each of them has.
function workers() {
  fetch('stats').then((r) => r.json()).then((s) => {
    if (!s.workers) return;
    $('workers').textContent = 'workers: ' + s.workers.map((w) => (w.state === 'ready' ? w.connections : w.state)).join(' ');
    setTimeout(workers, 2000);
  }).catch(() => setTimeout(workers, 2000));
}
workers();
