// Calls Parley from Node 18 or newer, without a package.
//
//   node backend.mjs publish chat:1 'hello from Node'
//   node backend.mjs members chat:1
//   node backend.mjs token 42
//
// PARLEY_API_KEY is the key, as `parley key create` prints it; PARLEY_URL is where the API listens, if that is not
// http://127.0.0.1:9092; PARLEY_JWT_SECRET_FILE is the file that Parley's setting jwt_secret_file names.
import { createHmac } from 'node:crypto';
import { readFileSync, realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const base = (process.env.PARLEY_URL || 'http://127.0.0.1:9092').replace(/\/$/, '');
const key = (process.env.PARLEY_API_KEY || '').trim();

/** Parley refused a request, or did not answer. Programs look at code ("room_full"); people read the message. */
export class Problem extends Error {
  constructor(code, detail) {
    super(`${code}: ${detail}`);
    this.code = code;
  }
}

/** Calls the API and returns the answer. fields are the body of a POST, the query of a GET. */
async function call(method, path, fields) {
  const options = { method, headers: { Authorization: `Bearer ${key}` }, redirect: 'error', signal: AbortSignal.timeout(5000) };
  if (method === 'GET') {
    path += '?' + new URLSearchParams(fields);
  } else {
    options.headers['Content-Type'] = 'application/json';
    options.body = JSON.stringify(fields);
  }
  let response, answer;
  try {
    response = await fetch(base + path, options);
    answer = await response.json();
  } catch (e) {
    throw new Problem('unreachable', `no answer of Parley's from ${base}: ${e.cause?.message ?? e.message}`);
  }
  if (!response.ok) throw new Problem(answer.code, answer.detail ?? answer.title); // a problem document (RFC 9457)
  return answer;
}

/**
 * Sends data, any JSON, to all members of a room. Await each call before the next one where their order matters: fetch spreads
 * calls that run at the same time over several connections.
 */
export const publish = (room, data) => call('POST', '/v1/publish', { room, data });

/** Yields the members of a room. The server gives them in pages; next is where the following page begins. */
export async function* members(room) {
  const query = { room };
  for (;;) {
    const page = await call('GET', '/v1/members', query);
    yield* page.members;
    if (page.next === undefined) return;
    query.after = page.next;
  }
}

/**
 * Makes a token (HS256) by which a browser shows Parley which user it is, and what it may do. rights has patterns of rooms, where
 * * stands for any characters but ":". Do not build a pattern from what a user typed: a user called * would match all.
 */
export function token(user, rights, seconds = 900) {
  const secret = readFileSync(process.env.PARLEY_JWT_SECRET_FILE ?? '', 'latin1').replace(/[\r\n]+$/, '');
  const encode = (part) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const claims = { sub: user, iat: now, exp: now + seconds, parley: rights };
  const signed = encode({ alg: 'HS256', typ: 'JWT' }) + '.' + encode(claims);
  return signed + '.' + createHmac('sha256', Buffer.from(secret, 'latin1')).update(signed).digest('base64url');
}

async function main(verb, ...words) {
  if (verb === 'publish' && words.length === 2) {
    await publish(words[0], { text: words[1] });
    console.log('published');
  } else if (verb === 'members' && words.length === 1) {
    for await (const member of members(words[0])) console.log(member.id, member.user || '-'); // without a token no user
  } else if (verb === 'token' && words.length === 1) {
    console.log(token(words[0], { join: ['chat:*'], publish: ['chat:*'] }));
  } else {
    throw new Error('usage: node backend.mjs publish ROOM TEXT | members ROOM | token USER');
  }
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  main(...process.argv.slice(2)).catch((e) => {
    console.error(e.message);
    process.exitCode = 1;
  });
}
