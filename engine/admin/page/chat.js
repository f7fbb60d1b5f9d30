'use strict';
// A chat in the seed's messages: nothing but new WebSocket and JSON.

const $ = (id) => document.getElementById(id);
const log = $('log');
const rooms = new Map(); // that we are in, with their number of members
const names = new Map(); // what others call themselves, by id
let ws = null;
let me = null;
let reconnectToken = null; // from the server: restores rooms after a drop
let oldToken = null;       // the one to show on the next connection
let retries = 0;
let comeBack = 0; // milliseconds, as the server's goodbye asks
let port = 0;

// What outlives a reload of this tab. A browser may forbid it.
const store = {
  get(key) { try { return sessionStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { sessionStorage.setItem(key, value); } catch { /* then a reload is a new person */ } },
};

const words = {
  en: {
    connecting: 'connecting', connected: 'connected', disconnected: 'disconnected', youAre: 'You are', you: 'you',
    cut: 'Cut the connection', cutTitle: 'Drop the connection as a bad network would, and resume', cutByYou: 'cut by you',
    workers: 'workers:', workersTitle: 'Connections of each worker', name: 'Name', namePlaceholder: 'nobody checks it',
    room: 'Room', join: 'Join', leave: 'Leave', hint: 'Open this page in a second window to talk to yourself.',
    say: 'Say something to the room', sayTo: 'Say something to {0} only', message: 'Message', to: 'or to one id (click a name)',
    toLabel: 'Private to', send: 'Send', other: '中文', writeTo: 'Write to {0}',
    lost: 'Connection lost ({0}); trying again in {1} s.', resumed: 'Session resumed; back in {0}.', noRoom: 'no room',
    lostRoom: 'Could not get back into {0}: {1}.', one: '{0}: {1} member', many: '{0}: {1} members', joined: 'Joined {0}, {1} there.',
    left: 'Left {0}.', memberJoined: ' joined {0}', memberLeft: ' left {0}', inRoom: ' in {0}: {1}', toYou: ' to you: {0}',
    youTo: 'you to ', colon: ': {0}', nobody: 'No client with that id is connected.', afresh: 'The old session is gone; starting afresh.', backend: 'The backend',
  },
  zh: {
    connecting: '连接中', connected: '已连接', disconnected: '已断开', youAre: '您的编号', you: '您',
    cut: '切断连接', cutTitle: '像网络故障一样切断连接，然后恢复会话', cutByYou: '由您切断',
    workers: '工作进程：', workersTitle: '每个工作进程的连接数', name: '名字', namePlaceholder: '不会被验证',
    room: '房间', join: '加入', leave: '离开', hint: '在另一个窗口打开本页，就可以和自己聊天。',
    say: '对房间里的人说点什么', sayTo: '只对 {0} 说', message: '消息', to: '或只发给一个编号（点击名字）',
    toLabel: '私信对象', send: '发送', other: 'English', writeTo: '给 {0} 发私信',
    lost: '连接断开（{0}），{1} 秒后重试。', resumed: '会话已恢复；回到 {0}。', noRoom: '没有房间',
    lostRoom: '无法回到 {0}：{1}。', one: '{0}：{1} 人', many: '{0}：{1} 人', joined: '已加入 {0}，共 {1} 人。',
    left: '已离开 {0}。', memberJoined: ' 加入了 {0}', memberLeft: ' 离开了 {0}', inRoom: ' 在 {0}：{1}', toYou: ' 对您说：{0}',
    youTo: '您对 ', colon: ' 说：{0}', nobody: '没有这个编号的连接。', afresh: '原来的会话已失效，重新开始。', backend: '后端',
  },
};
let language = store.get('language') || ((navigator.language || '').startsWith('zh') ? 'zh' : 'en');

const say = (key, ...values) => words[language][key].replace(/\{(\d)\}/g, (_, n) => values[n]);

// translate puts the words of the language where the page asks for them by data-say, and data-say-ATTRIBUTE.
function translate() {
  document.documentElement.lang = language;
  for (const at of document.querySelectorAll('[data-say]')) at.textContent = say(at.dataset.say);
  for (const name of ['title', 'placeholder', 'aria-label']) {
    for (const at of document.querySelectorAll(`[data-say-${name}]`)) at.setAttribute(name, say(at.getAttribute(`data-say-${name}`)));
  }
  state(stateNow);
  showMembers();
  showTarget();
}

function show(kind, ...parts) {
  const p = document.createElement('p');
  p.className = kind;
  p.append(...parts);
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(p);
  while (log.childElementCount > 500) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

const called = (id) => (names.has(id) ? `${names.get(id)} (${id.slice(-6)})` : id.slice(-6));

// who is a name that can be clicked, or chosen by keyboard, to write to it.
function who(id, name) {
  if (name) {
    if (names.size > 1000) names.clear();
    names.set(id, name);
  }
  const b = document.createElement('button');
  b.type = 'button';
  b.className = 'who';
  b.textContent = id === me ? say('you') : called(id);
  b.title = id;
  b.setAttribute('aria-label', say('writeTo', b.textContent));
  b.onclick = () => { $('to').value = id; showTarget(); $('text').focus(); };
  return b;
}

// showTarget says who will read what is written.
function showTarget() {
  const to = $('to').value.trim();
  $('text').placeholder = to ? say('sayTo', called(to)) : say('say');
  $('saying').classList.toggle('private', to !== '');
}

let stateNow = 'connecting';
function state(now) {
  stateNow = now;
  const open = now === 'connected';
  $('state').textContent = say(now);
  $('state').className = 'state ' + ({ connected: 'open', disconnected: 'down' }[now] || '');
  $('send').disabled = $('join').disabled = $('leave').disabled = $('cut').disabled = !open;
}

function send(message) {
  if (ws && ws.readyState === WebSocket.OPEN) ws.send(JSON.stringify(message));
}

function connect() {
  state('connecting');
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  ws = new WebSocket(`${scheme}://${location.hostname}:${port}/`);
  const mine = ws;
  ws.onopen = () => {
    retries = 0;
    resume();
  };
  ws.onmessage = (event) => { if (mine === ws) receive(JSON.parse(event.data)); };
  ws.onclose = (event) => {
    if (mine !== ws) return;
    dropped(event.code, event.reason);
  };
}

function resume() {
  if (oldToken) send({ type: 'reconnect', token: oldToken, ref: 'resume' });
}

function dropped(code, reason) {
  ws = null;
  oldToken = reconnectToken || oldToken;
  reconnectToken = null;
  const wait = comeBack || Math.min(1000 * 2 ** retries++, 15000) * (0.5 + Math.random() / 2);
  comeBack = 0;
  state('disconnected');
  show('note', say('lost', `${code}${reason ? ' ' + reason : ''}`, (wait / 1000).toFixed(1)));
  setTimeout(connect, wait);
}

// joinAll joins the rooms that this tab was in, or the one that is named.
function joinAll() {
  const list = JSON.parse(store.get('rooms') || '[]');
  rooms.clear();
  for (const room of list.length ? list : [$('room').value]) send({ type: 'join', room });
}

function keepRooms() {
  store.set('rooms', JSON.stringify([...rooms.keys()]));
  showMembers();
}

function count(room, members) {
  if (rooms.has(room)) rooms.set(room, Math.max(1, members));
  showMembers();
}

function showMembers() {
  const room = $('room').value;
  const n = rooms.get(room);
  $('members').textContent = n ? say(n === 1 ? 'one' : 'many', room, n) : '';
}

const handlers = {
  connected(m) {
    me = m.connection_id;
    $('me').textContent = me;
    state('connected');
    if (!oldToken) joinAll();
  },
  reconnect_token(m) {
    reconnectToken = m.token;
    if (!oldToken) store.set('token', m.token); // until it is resumed, the old one counts
  },
  reconnected(m) {
    oldToken = null;
    if (reconnectToken) store.set('token', reconnectToken);
    rooms.clear();
    for (const room of m.rooms) {
      rooms.set(room, 0);
      send({ type: 'members', room });
    }
    keepRooms();
    show('note', say('resumed', m.rooms.join(', ') || say('noRoom')));
    for (const lost of m.lost || []) show('error', say('lostRoom', lost.room, lost.code));
  },
  joined(m) {
    rooms.set(m.room, m.members);
    keepRooms();
    show('note', say('joined', m.room, m.members));
  },
  left(m) {
    rooms.delete(m.room);
    keepRooms();
    show('note', say('left', m.room));
  },
  members(m) { count(m.room, m.count); },
  member_joined(m) {
    count(m.room, (rooms.get(m.room) || 0) + 1);
    show('note', who(m.connection_id, m.user), say('memberJoined', m.room));
  },
  member_left(m) {
    count(m.room, (rooms.get(m.room) || 0) - 1);
    show('note', who(m.connection_id, m.user), say('memberLeft', m.room));
  },
  chat(m) { show('chat', who(m.from, m.name), say('inRoom', m.room, m.text)); },
  broadcast(m) { show('chat', m.from ? who(m.from, m.user) : say('backend'), say('inRoom', m.room, JSON.stringify(m.data))); },
  private(m) { show('private', who(m.from, m.name), say('toYou', m.text)); },
  private_sent(m) { if (!m.delivered) show('error', say('nobody')); },
  chat_sent() {},
  goodbye(m) { comeBack = 1000 * m.retry_after; },
  ping() { send({ type: 'pong' }); },
  error(m) {
    if (m.ref === 'resume' && m.code === 'unavailable') {
      setTimeout(resume, 1000); // the token stays good
      return;
    }
    if (m.ref === 'resume') {
      oldToken = null;
      if (reconnectToken) store.set('token', reconnectToken);
      show('note', say('afresh'));
      joinAll();
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
$('room').oninput = showMembers;
$('to').oninput = showTarget;
$('name').value = store.get('name') || '';
$('name').oninput = () => store.set('name', $('name').value.trim());
$('language').onclick = () => {
  language = language === 'zh' ? 'en' : 'zh';
  store.set('language', language);
  translate();
};
$('saying').onsubmit = (event) => {
  event.preventDefault();
  const text = $('text').value;
  const to = $('to').value.trim();
  const name = $('name').value.trim() || undefined;
  if (!text) return;
  if (to) {
    send({ type: 'private', to, text, name });
    show('private', say('youTo'), who(to), say('colon', text));
    $('to').value = ''; // the next one is for the room, unless somebody is chosen again
    showTarget();
  } else {
    send({ type: 'chat', room: $('room').value, text, name });
  }
  $('text').value = '';
};
// Cutting forgets the socket without a close: the server finds a half-open connection, and the session is
// taken over from it.
$('cut').onclick = () => dropped(1006, say('cutByYou'));

translate();
oldToken = store.get('token');
fetch('server.json').then((r) => r.json()).then((s) => {
  port = s.port;
  connect();
});

// Where several processes serve, the page says how many connections each of them has.
function workers() {
  fetch('stats').then((r) => r.json()).then((s) => {
    if (!s.workers) return;
    $('workers').textContent = `${say('workers')} ${s.workers.map((w) => (w.state === 'ready' ? w.connections : w.state)).join(' ')}`;
    setTimeout(workers, 2000);
  }).catch(() => setTimeout(workers, 2000));
}
workers();
