// What a message, a name and a list of messages look like.

import { language, say } from './words.js';

const linesMax = 500;
const namesMax = 1000;
const names = new Map(); // what clients call themselves, by id

/** This window's ids, that of the connection at the end: each connection has another one. */
export const mine = [];

export function learn(id, name) {
  if (!id || !name) return;
  if (names.size >= namesMax) names.clear();
  names.set(id, name);
}

export function called(id) {
  if (!id) return say('backend');
  return mine.includes(id) ? say('you') : names.get(id) || id.slice(-6);
}

export function make(kind, className = '', ...parts) {
  const e = document.createElement(kind);
  e.className = className;
  e.append(...parts);
  return e;
}

/** A name that can be clicked, or chosen by keyboard, to write to it. */
export function who(id, choose) {
  if (!id || mine.includes(id)) return make('span', 'who', called(id));
  const b = make('button', 'who', called(id));
  b.type = 'button';
  b.title = id;
  b.setAttribute('aria-label', say('writeTo', called(id)));
  b.style.setProperty('--hue', [...id].reduce((h, c) => (h * 31 + c.charCodeAt(0)) % 997, 7) * 137 % 360);
  b.onclick = () => choose(id);
  return b;
}

const time = (seconds) => new Date(seconds ? seconds * 1000 : Date.now()).toLocaleTimeString(language, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });

/** What the server's messages say: those of a client's publish, of the seed's chat, and any other. */
export function content(m) {
  const data = m.type === 'broadcast' ? m.data : m;
  if (typeof data === 'string') return { text: data };
  if (typeof data?.text === 'string') return { text: data.text, name: typeof data.name === 'string' ? data.name : undefined };
  return { text: JSON.stringify(data), raw: true };
}

/** One message. `fate` is a word about it, such as whom it has reached. */
export function bubble(m, choose, fate = '') {
  const { text, name, raw } = content(m);
  learn(m.from, m.user ?? name);
  const own = mine.includes(m.from);
  const line = make('li', `line ${own ? 'own' : ''} ${m.private ? 'private' : ''}`);
  line.dataset.from = m.private ? '' : (m.from ?? 'backend');
  const head = make('span', 'head', own ? '' : who(m.from, choose), m.private ? make('span', 'fate', m.private) : '');
  const foot = make('span', 'foot', make('span', 'fate', fate), make('time', '', time(m.timestamp)));
  line.append(head, make('span', raw ? 'text raw' : 'text', text), foot);
  return line;
}

export const tell = (line, fate) => (line.querySelector('.foot .fate').textContent = fate);

/** The messages of a room. It stays at its end unless the reader has scrolled up. */
export class List {
  element = make('ol', 'list');

  constructor(at) {
    this.at = at;
  }

  #keep(change) {
    const atEnd = this.at.scrollHeight - this.at.scrollTop - this.at.clientHeight < 60;
    change();
    while (this.element.childElementCount > linesMax) this.element.firstElementChild.remove();
    if (atEnd || !this.element.isConnected) this.at.scrollTop = this.at.scrollHeight;
  }

  /** Puts a line at the end, also one that stands further up. Returns it. */
  add(line) {
    this.#keep(() => {
      line.remove();
      follow(this.element.lastElementChild, line);
      this.element.append(line);
    });
    return line;
  }

  note(kind, ...parts) {
    return this.add(make('li', kind, ...parts));
  }

  /** Puts older lines in front. */
  prepend(lines) {
    this.#keep(() => {
      lines.forEach((line, i) => i && follow(lines[i - 1], line));
      this.element.prepend(...lines);
    });
  }
}

/** The second of two lines of one person does without the name. */
function follow(before, line) {
  line.classList.toggle('more', !!line.dataset.from && before?.dataset.from === line.dataset.from);
}
