// A look at the wire: a WebSocket that shows what goes over it, and that can be cut.

const list = document.getElementById('wire-log');
const details = document.getElementById('wire');
const linesMax = 300;
const textMax = 2000;
let lines = [];

function draw([way, text]) {
  const line = document.createElement('li');
  line.className = way;
  line.textContent = text.length > textMax ? text.slice(0, textMax) + ' …' : text;
  list.append(line);
  while (list.childElementCount > linesMax) list.firstElementChild.remove();
}

/** A closed log costs no drawing. */
function note(way, text) {
  lines.push([way, text]);
  if (lines.length > 2 * linesMax) lines = lines.slice(-linesMax);
  if (!details.open) return;
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  draw(lines.at(-1));
  if (atEnd) list.scrollTop = list.scrollHeight;
}

details.addEventListener('toggle', () => {
  if (!details.open) return;
  list.replaceChildren();
  lines.slice(-linesMax).forEach(draw);
  list.scrollTop = list.scrollHeight;
});

function parsed(text) {
  try { return JSON.parse(text) ?? {}; } catch { return {}; }
}

/** The class of sockets for the client. `heard` gets each message in front of the client. */
export function tapped(heard) {
  return class Tapped extends WebSocket {
    static last = null;

    constructor(url, protocols) {
      super(url, protocols);
      Tapped.last = this;
      this.addEventListener('open', () => note('event', 'open ' + url));
      this.addEventListener('close', (e) => note('event', `close ${e.code} ${e.reason}`));
      this.addEventListener('message', ({ data }) => {
        note('in', String(data));
        if (this.onmessage) heard(parsed(data));
      });
    }

    send(text) {
      note('out', text);
      super.send(text);
    }

    /** For the client it is as if the network had gone. Without the close, the browser would go on to answer PINGs. */
    cut() {
      this.onclose?.({ code: 1006, reason: '' });
      this.close();
    }
  };
}
