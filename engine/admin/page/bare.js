// A room without a library: docs/wire.md has the lines between the two rules, and says what each is for.

import { translate } from './words.js';

translate();
const { port } = await (await fetch('server.json')).json();
const url = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.hostname}:${port}/`;
const form = document.getElementById('saying'), text = document.getElementById('text'), list = document.getElementById('list');
let publish;

function add(kind, what) {
  const line = Object.assign(document.createElement('li'), { className: kind, textContent: what });
  list.append(line);
  line.scrollIntoView();
}
const show = (m) => add('line', typeof m.data === 'string' ? m.data : m.data?.text ?? JSON.stringify(m.data));
const missing = (m) => add('gap', JSON.stringify(m));

// ----
let token, last = {};
(function open() {
  const ws = new WebSocket(url), say = (m) => ws.send(JSON.stringify(m)), mine = token;
  publish = (data) => ws.readyState === 1 && (say({type: "broadcast", room: "lobby", data}), true);
  ws.onopen = () => say(mine ? {type: "reconnect", token: mine, last} : {type: "join", room: "lobby", since: last.lobby});
  ws.onclose = () => setTimeout(open, 1000 * Math.random());
  ws.onmessage = (e) => { const m = JSON.parse(e.data);
    if (m.type === "reconnect_token") token = m.token;
    if (m.room && m.seq >= 0) last[m.room] = {seq: m.seq, epoch: m.epoch};
    if (m.positions) Object.assign(last, m.positions);
    if (/^(invalid_token|attempts_exhausted)$/.test(m.code) || m.type === "reconnected" && !m.rooms.includes("lobby"))
      say({type: "join", room: "lobby", since: last.lobby});
    if (m.code === "unavailable") { token = mine; ws.close(); }
    if (m.type === "gap" || m.gap || m.gaps?.length) missing(m);       // says exactly what
    if (m.type === "broadcast") show(m); };
})();
// ----

form.onsubmit = (event) => {
  event.preventDefault();
  if (!text.value || !publish(text.value)) return;
  add('line own', text.value);
  text.value = '';
};
