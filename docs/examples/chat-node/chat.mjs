// A chat with a backend in Node 18 or newer, without a package. It logs users in, gives their browsers tokens, and publishes what
// they say. Parley delivers.
//
//   node docs/examples/chat-node/chat.mjs 8000 [PAGE]
//
// CHAT_WS_URL is where browsers reach Parley (ws://127.0.0.1:9090/), CHAT_HOST where this program listens (127.0.0.1), CHAT_ROOM the
// room (chat:1), and PARLEY_JS the file of parley-client. docs/backend/node/backend.mjs has the variables of the API.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { Problem, publish, token } from '../../backend/node/backend.mjs';

const { CHAT_WS_URL = 'ws://127.0.0.1:9090/', CHAT_HOST = '127.0.0.1', CHAT_ROOM = 'chat:1', PARLEY_JS } = process.env;
const here = (path) => new URL(path, import.meta.url);
const port = Number(process.argv[2] || 8000);
const files = {
  '/': ['text/html; charset=utf-8', readFileSync(process.argv[3] || here('page.html'))],
  '/parley.js': ['text/javascript; charset=utf-8', readFileSync(PARLEY_JS || here('../../../engine/admin/page/parley.js'))],
};

/** An answer that is no success. detail is for the person in front of the page. */
class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

// Your login stands here. This one believes every name, and remembers it in a cookie that it signs: so it needs no store of sessions.
// The key is new at each start, and so a restart logs everybody out.
const loginKey = randomBytes(32);
const signature = (name) => createHmac('sha256', loginKey).update(name).digest('base64url');

/** The user of a request; throws a Refusal if nobody has logged in. */
function userOf(request) {
  const cookie = /(?:^|; *)chat=([^.;]+)\.([\w-]{43})(?:;|$)/.exec(request.headers.cookie ?? '');
  if (!cookie || !timingSafeEqual(Buffer.from(cookie[2]), Buffer.from(signature(cookie[1])))) throw new Refusal(401, 'log in first');
  return decodeURIComponent(cookie[1]);
}

/** The fields of a form, which has at most 8 KiB. */
async function formOf(request) {
  let text = '';
  for await (const chunk of request.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
    text += chunk;
    if (text.length > 8192) throw new Refusal(413, 'a form has at most 8 KiB');
  }
  return new URLSearchParams(text);
}

/** What a POST does, by its path. Each returns the answer's status and fields, and perhaps a cookie. */
const actions = {
  async '/login'(request) {
    const name = (await formOf(request)).get('name') ?? '';
    if (!/^[\p{L}\p{N}_-]{1,32}$/u.test(name)) throw new Refusal(400, 'a name has 1 to 32 letters and digits');
    const user = encodeURIComponent(name);
    // Strict keeps the forms of other sites from speaking in this user's name. Behind TLS add "Secure".
    return [200, {}, `chat=${user}.${signature(user)}; HttpOnly; SameSite=Strict; Path=/; Max-Age=86400`];
  },
  // The browser may listen in the room. It may not publish there: its words come to this program first.
  async '/token'(request) {
    const user = userOf(request);
    return [200, { url: CHAT_WS_URL, room: CHAT_ROOM, user, token: token(user, { join: [CHAT_ROOM], publish: [] }) }];
  },
  async '/say'(request) {
    const from = userOf(request);
    const text = ((await formOf(request)).get('text') ?? '').trim();
    if (text === '' || text.length > 500) throw new Refusal(400, 'a message has 1 to 500 characters');
    await publish(CHAT_ROOM, { from, text });
    return [200, {}];
  },
};

function answer(response, [status, fields, cookie]) {
  const headers = { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' }; // a token is a secret
  if (cookie) headers['Set-Cookie'] = cookie;
  response.writeHead(status, headers).end(JSON.stringify(fields));
}

function failed(response, e) {
  if (e instanceof Refusal) return answer(response, [e.status, { detail: e.message }]);
  console.error(e instanceof Problem ? e.message : e); // for you; the browser learns no more than it needs
  answer(response, [e instanceof Problem ? 502 : 500, { detail: 'the chat is not available' }]);
}

const server = createServer((request, response) => {
  const path = request.url.split('?', 1)[0];
  if (request.method === 'GET' && Object.hasOwn(files, path)) {
    const [type, body] = files[path];
    response.writeHead(200, { 'Content-Type': type, 'X-Content-Type-Options': 'nosniff' }).end(body);
  } else if (request.method === 'POST' && Object.hasOwn(actions, path)) {
    actions[path](request).then((result) => answer(response, result)).catch((e) => failed(response, e));
  } else {
    answer(response, [404, { detail: 'there is nothing here' }]);
  }
});
server.listen(port, CHAT_HOST, () => console.log(`http://${CHAT_HOST}:${port}/`));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.close());
