// The chat page, on the client in TypeScript (parley.js, from clients/js).

import { Parley } from './parley.js';
import { bubble, called, content, learn, List, make, mine, tell, who } from './view.js';
import { tapped } from './wire.js';
import { count, ending, plain, say, switchLanguage, translate } from './words.js';

const $ = (id) => document.getElementById(id);
const cutFor = 5000;
const outcomeFor = 15_000;
const membersMax = 100;
const earlierMax = 50;
const spokenMax = 5;
const wide = matchMedia('(min-width: 48rem)');

// What outlives a reload of this tab: rooms with their positions, and who this is. A browser may forbid it.
const kept = (() => { try { return JSON.parse(sessionStorage.getItem('chat')) ?? {}; } catch { return {}; } })();
function keep() {
  const rooms = Object.fromEntries([...places.values()].filter((p) => p.here).map((p) => [p.room.name, p.room.position ?? p.since ?? null]));
  const all = { rooms, current: current?.room.name, mine: mine.slice(-20), name: $('name').value.trim() };
  try { sessionStorage.setItem('chat', JSON.stringify(all)); } catch { /* then a reload is a new person */ }
}

// The connection.

let url = ''; // of the server, once the page knows it
let reached = false; // the server has answered once
let cut = null; // while the connection is cut on purpose: ends that
let waiting = Promise.resolve();
let loss = null; // the line that says when the next attempt follows
let why = 0; // the code with which the connection ended
let outcome = null; // of coming back: { name, messages, missing, gap, shown }
const replays = new Map(); // what was missed: the number with which it ends, by room
const Socket = tapped(heard);

// A server with auth: required takes the token of the page's address, behind a # that no server and no log sees.
const token = new URLSearchParams(location.hash.slice(1)).get('token') ?? undefined;

const parley = new Parley(address, { WebSocket: Socket, storage: safeStorage(), queue: 100, retry: { max: 5000 }, token });

function safeStorage() {
  try { return sessionStorage; } catch { return null; }
}

async function address() {
  await waiting;
  if (url) return url;
  const { port } = await (await fetch('server.json')).json();
  return (url = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.hostname}:${port}/`);
}

function connect() {
  why = 0;
  parley.connect().catch((e) => { if (!why) note('error', plain(e)); }); // a loss has its line already
}

function cutOrConnect() {
  if (cut) return cut();
  if (parley.state === 'closed') return connect();
  let timer;
  waiting = new Promise((go) => (cut = go)).then(() => { cut = null; clearTimeout(timer); });
  timer = setTimeout(cut, cutFor);
  Socket.last.cut();
}

/** Looks at a message in front of the client: where replays end, and which rooms a session or a backend brings. */
function heard(m) {
  if (m.type === 'joined' || m.type === 'position') place(m.room).enter();
  if (m.type === 'joined' && m.until) replays.set(m.room, m.until);
  if (m.type !== 'reconnected') return;
  for (const name of m.rooms) place(name).enter();
  for (const [name, { until }] of Object.entries(m.positions ?? {})) replays.set(name, until);
}

parley.on('state', (state) => {
  if (state === 'closed' && loss) {
    loss.className = 'error';
    loss.textContent = why === 4004 ? say('takenOver') : say('ended', ending(why), why);
    announce(loss.textContent, true);
    loss = null;
  }
  showState();
});
parley.on('drop', ({ code, retryIn }) => {
  outcome = { name: '', messages: 0, missing: 0, gap: false, shown: false };
  replays.clear();
  why = code;
  if (cut) note('note', say('cutByYou'));
  else {
    loss ??= note('note', '');
    if (!reached && code === 1006) loss.textContent = say('unreachable', url || location.origin, location.origin);
    else loss.textContent = retryIn === null ? say('lostOffline', ending(code), code) : say('lost', ending(code), code, (retryIn / 1000).toFixed(1));
  }
});
parley.on('open', ({ id, resumed, lost }) => {
  reached = true;
  loss = null;
  mine.push(id);
  $('me').textContent = id;
  for (const { room, code } of lost) if (!places.has(room)) note('error', say('leftRoom', room, plain({ code })));
  if (outcome) {
    outcome.name = resumed ? 'resumed' : 'afresh';
    outcome.shown = true;
    const told = outcome;
    setTimeout(() => { if (outcome === told) { outcome = null; showState(); } }, outcomeFor);
  }
  keep();
  showState();
  showMembers();
});
parley.on('error', (e) => { if (parley.state === 'open') note('error', plain(e)); });
parley.on('message', (m) => { if (!m.room && m.type !== 'private') note('note raw', JSON.stringify(m)); });
parley.onMessage('private', (m) => {
  (current?.list ?? nowhere).add(bubble({ ...m, private: say('privateFrom') }, choose));
  announce(`${called(m.from)}, ${say('privateFrom')}: ${content(m).text}`);
});

function showState() {
  const state = parley.state;
  const open = state === 'open';
  let text = say(open ? 'connected' : state === 'closed' ? 'closed' : outcome ? 'reconnecting' : 'connecting');
  let kind = open ? 'open' : state === 'closed' ? 'down' : 'busy';
  if (open && outcome?.shown) {
    const name = say(outcome.name);
    const historic = [...places.values()].some((p) => p.here && p.room.position);
    text = outcome.missing ? count('missing', outcome.missing, name) : outcome.gap ? say('gap', name) : historic ? count('caughtUp', outcome.messages, name) : name;
    if (outcome.missing || outcome.gap) kind = 'gap';
  }
  $('state').textContent = text;
  $('state').className = 'state ' + kind;
  $('log').classList.toggle('away', !reached); // then there is nothing to try
  $('cut').textContent = say((state === 'closed' ? 'again' : cut ? 'now' : 'cut') + (wide.matches ? '' : 'Short'));
  $('cut').disabled = !(open || cut || state === 'closed');
}

// Rooms.

const places = new Map(); // rooms that this page is or was in, by name
const nowhere = new List($('log')); // where there is no room, the connection's notes stand alone
let current = null;

function place(name, since) {
  if (!places.has(name)) places.set(name, new Place(name, since));
  return places.get(name);
}

/** A room as the page has it: its tab, messages and members. */
class Place {
  list = new List($('log'));
  here = false;
  fresh = true; // what it kept of earlier has not been shown
  first = undefined; // the number of the first message that is shown
  unread = 0;
  members = new Set();
  count = 0;

  constructor(name, since) {
    this.since = since ?? undefined;
    this.room = parley.room(name, { join: false, since: this.since });
    this.room.on('message', (m) => this.#message(m));
    this.room.on('joined', () => this.#joined());
    this.room.on('left', (e) => this.#left(e, 'leftRoom'));
    this.room.on('member_joined', ({ id, user }) => this.#moved(id, user, true));
    this.room.on('member_left', ({ id, user }) => this.#moved(id, user, false));
    this.room.on('gap', (gap) => this.#gap(gap));
    this.room.on('refused', (e) => this.#left(e, 'refused'));
  }

  /** Shows the room. */
  enter() {
    if (this.here) return;
    this.here = true;
    if (!current) show(this);
    showRooms();
  }

  #message(m) {
    if (m.seq !== undefined && m.seq <= replays.get(this.room.name) && outcome) outcome.messages++;
    else if (m.seq > replays.get(this.room.name)) replays.delete(this.room.name);
    this.first ??= m.seq;
    this.list.add(bubble(m, choose));
    if (outcome) showState();
    if (this === current && !mine.includes(m.from)) announce(`${called(m.from)}: ${content(m).text}`);
    if (this === current && !document.hidden) return;
    this.unread++;
    showRooms();
  }

  async #joined() {
    const { name, position } = this.room;
    this.since = undefined;
    keep();
    parley.request('members', { room: name }).then((m) => {
      this.members = new Set(m.members.slice(0, membersMax));
      m.members.forEach((id, i) => learn(id, m.users?.[i]));
      this.count = m.count;
      showMembers();
    }, () => {});
    if (!this.fresh || !position) return;
    this.fresh = false;
    // A page that was loaded again is at its old position, and what follows is replayed, or has been. This is what was there already.
    const before = { ...position, seq: this.first ?? position.seq + 1 };
    const earlier = await this.room.history({ limit: earlierMax, before }).catch(() => []);
    this.list.prepend(earlier.map((m) => bubble(m, choose)));
  }

  #left(e, how) {
    this.here = false;
    this.members.clear();
    this.count = 0;
    if (this === current) show([...places.values()].find((p) => p.here) ?? null);
    if (e.code) note('error', say(how, this.room.name, plain(e)));
    showRooms();
    keep();
  }

  #moved(id, user, came) {
    learn(id, user);
    this.count = Math.max(1, this.count + (came ? 1 : -1));
    if (!came) this.members.delete(id);
    else if (this.members.size < membersMax) this.members.add(id);
    this.#note('note', say(came ? 'joined' : 'left', called(id)));
    showMembers();
  }

  #gap({ from, to }) {
    if (outcome && from) outcome.missing += to - from + 1;
    else if (outcome && this.room.position) outcome.gap = true;
    if (from) this.#note('gap', from === to ? say('gapOne', from) : say('gapRange', from, to));
    else if (this.room.position) this.#note('gap', say('gapUnknown'));
    else this.#note('note', say('noHistory'));
    showState();
  }

  #note(kind, text) {
    if (this === current) note(kind, text);
    else this.list.note(kind, text);
  }
}

function show(p) {
  current = p;
  $('log').replaceChildren((p?.list ?? nowhere).element, hint());
  $('log').scrollTop = $('log').scrollHeight;
  if (p) p.unread = 0;
  showRooms();
  showMembers();
  showTarget();
}

function note(kind, text) {
  announce(text, kind === 'error');
  return (current?.list ?? nowhere).note(kind, text);
}

/** Lets a screen reader say a line: an urgent one at once, another one when it has time. */
function announce(text, urgent = false) {
  const region = $(urgent ? 'urgent' : 'spoken');
  region.append(make('p', '', text));
  while (region.childElementCount > spokenMax) region.firstElementChild.remove();
}

function showRooms() {
  const tabs = [...places.values()].filter((p) => p.here).map((p) => {
    const name = p.room.name;
    const open = make('button', 'room', name, ...(p.unread && p !== current ? [make('span', 'unread', String(p.unread))] : []));
    if (p.unread) open.setAttribute('aria-label', say('unread', name, p.unread));
    if (p === current) open.setAttribute('aria-current', 'true');
    open.onclick = () => { show(p); $('text').focus(); };
    const leave = make('button', 'leave', '×');
    leave.setAttribute('aria-label', say('leaveRoom', name));
    leave.title = say('leaveRoom', name);
    leave.onclick = () => p.room.leave().catch(() => {});
    return make('li', p === current ? 'tab current' : 'tab', open, leave);
  });
  $('rooms').replaceChildren(...tabs);
  document.title = ([...places.values()].some((p) => p.unread) ? '• ' : '') + say('title');
}

function showMembers() {
  const n = current?.count ?? 0;
  $('count').textContent = n === 0 ? say('noMembers') : n === 1 ? say('member') : say('members', n);
  const members = [...(current?.members ?? [])].sort((a, b) => mine.includes(b) - mine.includes(a));
  const lines = members.map((id) => make('li', '', who(id, choose)));
  if (n > members.length && members.length) lines.push(make('li', 'note', say('more', n - members.length)));
  $('member-list').replaceChildren(...lines);
}

// Writing.

function choose(id) {
  $('to').value = id;
  showTarget();
  $('text').focus();
}

function showTarget() {
  const to = $('to').value.trim();
  const name = current?.room.name;
  $('to').placeholder = name ? say('everyone', name) : say('nobody');
  $('text').placeholder = to ? say('writePrivate', called(to)) : name ? say('write', name) : say('nowhere');
  $('saying').classList.toggle('private', to !== '');
  $('send').disabled = !to && !name;
}

/** Publishes once, over as many connections as it takes: in a room with history the server knows the key. */
async function publish(room, data) {
  const key = crypto.getRandomValues(new Uint32Array(4)).join('-');
  for (;;) {
    const idempotency_key = room.position ? key : undefined;
    try {
      return await parley.request('broadcast', { room: room.name, data, idempotency_key });
    } catch (e) {
      if (e.code !== 'dropped' || !idempotency_key) throw e;
    }
  }
}

async function send(to, text) {
  const room = current?.room;
  const list = current?.list ?? nowhere;
  const name = $('name').value.trim() || undefined;
  const own = { type: 'broadcast', from: mine.at(-1), data: { text }, private: to && say('privateTo', called(to)) };
  const line = list.add(bubble(own, choose, say('sending')));
  line.classList.add('pending');
  try {
    if (to) {
      const { delivered } = await parley.request('private', { to, text, name });
      tell(line, '');
      if (!delivered) note('error', say('noSuch'));
    } else {
      const { recipients, duplicate } = await publish(room, { text, name });
      tell(line, duplicate ? '' : say('reached', recipients));
      list.add(line); // where the room has it
    }
    line.classList.remove('pending');
  } catch (e) {
    line.classList.add('failed');
    const fate = /dropped|timeout/.test(e.code) ? say('unknown') : say('failed', plain(e));
    tell(line, fate);
    announce(fate, true);
  }
}

$('saying').onsubmit = (event) => {
  event.preventDefault();
  const text = $('text').value;
  const to = $('to').value.trim();
  if (!text || !to && !current) return;
  void send(to, text);
  $('text').value = $('to').value = ''; // the next one is for the room, unless somebody is chosen again
  showTarget();
  $('text').focus();
};
$('joining').onsubmit = (event) => {
  event.preventDefault();
  const p = place($('room').value.trim() || $('room').value);
  p.enter();
  show(p);
  p.room.join().catch(() => {});
  $('room').value = '';
  $('text').focus();
};
$('to').oninput = showTarget;
$('name').onchange = keep;
$('cut').onclick = cutOrConnect;
$('language').onclick = () => {
  switchLanguage();
  speak();
};
document.addEventListener('keydown', escape);
addEventListener('hashchange', () => location.reload()); // another token
document.addEventListener('visibilitychange', () => {
  keep();
  if (!document.hidden && current?.unread) show(current);
});
addEventListener('pagehide', keep);

/** Escape closes the panel that has the focus, then the address of a private message, then panels that cover a phone. */
function escape(event) {
  if (event.key !== 'Escape' || event.isComposing) return;
  const open = [...document.querySelectorAll('details[open]')];
  const inside = open.find((panel) => panel.contains(event.target));
  if (inside) {
    inside.open = false;
    inside.querySelector('summary').focus();
  } else if ($('to').value) choose('');
  else if (!wide.matches) for (const panel of open) panel.open = false;
}

function speak() {
  translate();
  for (const line of document.querySelectorAll('.hint')) line.replaceWith(hint());
  showState();
  showRooms();
  showMembers();
  showTarget();
}

/** What a person can do first: the style hides it behind a list that has messages. */
function hint() {
  if (!current) return make('p', 'hint', say('hintNowhere'));
  const link = make('a', '', say('second'));
  link.href = location.pathname + location.hash;
  link.target = '_blank';
  link.rel = 'noopener'; // or the window would have this one's session
  const [before, after] = say('step1').split('{0}');
  const steps = make('ol', '', make('li', '', before, link, after), make('li', '', say('step2')), make('li', '', say('step3')));
  return make('div', 'hint', make('p', '', say('hint')), steps);
}

// Where several processes serve, the page says how many connections each of them has.
function workers() {
  fetch('stats').then((r) => r.json()).then((s) => {
    if (!s.workers) return;
    $('workers').textContent = `${say('workers')} ${s.workers.map((w) => (w.state === 'ready' ? w.connections : w.state)).join(' ')}`;
    setTimeout(workers, 2000);
  }).catch(() => setTimeout(workers, 2000));
}

// A window that gets smaller, as a phone's does above its keyboard, goes on to show the newest messages.
let atEnd = true;
$('log').onscroll = ({ target }) => { atEnd = target.scrollHeight - target.scrollTop - target.clientHeight < 60; };
new ResizeObserver(() => { if (atEnd) $('log').scrollTop = $('log').scrollHeight; }).observe($('log'));

wide.onchange = showState;
$('members').open = wide.matches;
$('name').value = kept.name ?? '';
mine.push(...(kept.mine ?? []));
speak();
show(null);
for (const [name, since] of Object.entries(kept.rooms ?? { lobby: null })) {
  const p = place(name, since);
  p.enter();
  p.room.join().catch(() => {});
  if (name === kept.current) show(p);
}
if (kept.rooms) outcome = { name: '', messages: 0, missing: 0, gap: false, shown: false };
connect();
workers();
if (matchMedia('(hover: hover)').matches) $('text').focus();
