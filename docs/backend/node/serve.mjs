// Serves ../browser.html on 127.0.0.1, and gives it tokens. See backend.mjs for the variables.
//
//   node serve.mjs 8000
//
// CHAT_WS_URL is where browsers reach Parley, if that is not ws://127.0.0.1:9090/ (in production wss://...).
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { token } from './backend.mjs';

const page = readFileSync(new URL('../browser.html', import.meta.url));
const server = process.env.CHAT_WS_URL || 'ws://127.0.0.1:9090/';
const port = Number(process.argv[2] || 8000);

/**
 * Your login stands here: look at the session cookie, and return the id of the user, or null. This stand-in believes every
 * visitor, which is why the page is served on 127.0.0.1 alone.
 */
function userOf(request) {
  const name = new URL(request.url, 'http://localhost').searchParams.get('name') ?? '';
  return /^[\p{L}\p{N}_-]{1,32}$/u.test(name) ? name : null;
}

function answer(response, status, body) {
  // no-store: a token is a secret, and no cache may keep it.
  response.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' });
  response.end(JSON.stringify(body));
}

createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  if (request.method === 'GET' && pathname === '/') {
    response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' });
    response.end(page);
    return;
  }
  if (request.method !== 'POST' || pathname !== '/token') return answer(response, 404, { detail: 'there is nothing here' });
  const user = userOf(request);
  if (user === null) return answer(response, 401, { detail: 'a name has 1 to 32 letters and digits' });
  try {
    const rights = { join: ['chat:*'], publish: ['chat:*'], attributes: { name: user } };
    answer(response, 200, { url: server, token: token(user, rights) });
  } catch (e) {
    console.error(e.message); // for you; the browser learns no more than it needs
    answer(response, 500, { detail: 'no token can be made' });
  }
}).listen(port, '127.0.0.1', () => console.log(`http://127.0.0.1:${port}/`));
