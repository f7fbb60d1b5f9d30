// Calls a server with two workers through the client that a public generator makes of /openapi.json. The compiler holds the calls
// against the generated types, and the assertions hold the answers. The arguments are the ids of two connections of the user 42,
// both in the room chat:1.
import assert from 'node:assert/strict';
import createClient from 'openapi-fetch';
import type { components, paths } from './parley.d.ts';

type Problem = components['schemas']['Problem'];

const baseUrl = process.env.PARLEY_URL;
const connect = (key?: string) =>
  createClient<paths, 'application/json' | 'application/problem+json'>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });
const parley = connect(process.env.PARLEY_API_KEY);
const called = new Set<string>();
parley.use({ onRequest: ({ request, schemaPath }) => void called.add(`${request.method} ${schemaPath}`) });

/** An answer that is no problem. */
async function good<T>(call: Promise<{ data?: T; error?: Problem }>): Promise<NonNullable<T>> {
  const { data, error } = await call;
  assert.equal(error, undefined);
  assert.ok(data);
  return data;
}

/** The problem of a call that is refused. */
async function refused<E extends Problem>(call: Promise<{ error?: E }>): Promise<NonNullable<E>> {
  const { error } = await call;
  assert.ok(error);
  return error;
}

const [ann, bob] = process.argv.slice(2) as [string, string];
const room = 'chat:1';

const published = await good(parley.POST('/v1/publish', {
  params: { header: { 'Idempotency-Key': 'one' } },
  body: { room, data: { text: 'to the room' }, count: true },
}));
assert.ok(published.recipients !== undefined && published.recipients >= 2);
assert.deepEqual(await good(parley.POST('/v1/publish', { body: { user: '42', message: { type: 'greeting', text: 'to the user' } } })), {});

const { results } = await good(parley.POST('/v1/batch', {
  body: {
    operations: [
      { do: 'publish', connection: bob, message: { type: 'greeting', text: 'to bob' }, count: true },
      { do: 'attributes', connection: ann, set: { team: 7 } },
      { do: 'rooms/delete', room: 'absent' },
      { do: 'leave', connection: ann, room: 'absent' },
    ],
    stop: true,
  },
}));
assert.deepEqual(results.slice(0, 2), [{ recipients: 1 }, { attributes: { team: 7 } }]);
assert.ok(results[2] && 'code' in results[2] && results[2].code === 'not_found');
assert.deepEqual(results[3], { skipped: true });

await good(parley.POST('/v1/rooms/create', { body: { room: 'chat:2', max_members: 5, metadata: { topic: 'x' } } }));
const full = await refused(parley.POST('/v1/rooms/create', { body: { room: 'chat:2' } }));
switch (full.code) {
  case 'room_exists':
    assert.equal(full.status, 409);
    break;
  // @ts-expect-error: the document has no such code
  case 'room_exits':
  default:
    assert.fail(`${full.code}: ${full.detail}`);
}
await good(parley.POST('/v1/rooms/update', { body: { room: 'chat:2', max_members: null } }));
assert.deepEqual(await good(parley.POST('/v1/join', { body: { user: '42', room: 'chat:2' } })), { joined: 2 });
assert.deepEqual(await good(parley.POST('/v1/leave', { body: { connection: ann, room: 'chat:2' } })), { left: 1 });
const found = await good(parley.GET('/v1/room', { params: { query: { room: 'chat:2' } } }));
assert.deepEqual([found.members, found.metadata], [1, { topic: 'x' }]);
const { rooms } = await good(parley.GET('/v1/rooms', { params: { query: { match: 'chat:*' } } }));
assert.deepEqual(rooms.map((row) => row.room).sort(), ['chat:1', 'chat:2']);
assert.deepEqual(await good(parley.POST('/v1/rooms/delete', { body: { room: 'chat:2' } })), { left: 1 });

const first = await good(parley.GET('/v1/members', { params: { query: { room, limit: 1 } } }));
const second = await good(parley.GET('/v1/members', { params: { query: { room, limit: 1, after: first.next } } }));
assert.deepEqual([...first.members, ...second.members].map((member) => member.user), ['42', '42']);
const lines = await parley.GET('/v1/members', {
  params: { query: { room, require: 'complete' } },
  headers: { Accept: 'application/x-ndjson' },
  parseAs: 'text',
});
assert.match(lines.data ?? '', /"end":true,"count":2/);
assert.deepEqual((await good(parley.GET('/v1/users', { params: { query: { user: ['42', '43'] } } }))).users,
  [{ user: '42', connections: 2 }, { user: '43', connections: 0 }]);
assert.deepEqual(await good(parley.POST('/v1/attributes', { body: { connection: bob, set: { team: 8 }, remove: ['x'] } })), { attributes: { team: 8 } });
const { connections } = await good(parley.GET('/v1/connections', { params: { query: { attribute: 'team:7' } } }));
assert.deepEqual(connections.map((conn) => [conn.id, conn.attributes.team]), [[ann, 7]]);
assert.equal((await good(parley.GET('/v1/connection', { params: { query: { id: bob } } }))).rooms[0], room);

const { workers, state } = await good(parley.GET('/v1/workers'));
assert.deepEqual([workers.length, state], [2, 'running']);
assert.equal((await good(parley.GET('/v1/stats'))).connections, 2);
const { settings, keys } = await good(parley.GET('/v1/config'));
assert.deepEqual([settings.processes, keys?.[0]?.scopes], [2, ['all']]);
assert.equal((await good(parley.GET('/v1/health'))).status, 'ok');

// This server has several workers, whose rooms keep no history.
assert.equal((await refused(parley.GET('/v1/history', { params: { query: { room, limit: 1 } } }))).code, 'no_history');
assert.equal((await refused(connect('pk_x_y').GET('/v1/stats'))).code, 'unauthenticated');
// @ts-expect-error: a room is a text
const mistaken = await refused(parley.POST('/v1/publish', { body: { room: 7, data: 1 } }));
assert.deepEqual([mistaken.code, mistaken.errors?.[0]?.pointer], ['invalid_request', '/room']);
assert.equal((await refused(parley.POST('/v1/disconnect', { body: { connexion: ann } }))).code, 'invalid_request');

assert.deepEqual(await good(parley.POST('/v1/disconnect', { body: { connection: ann, code: 4123, reason: 'enough' } })), { closed: 1 });
assert.deepEqual(await good(parley.POST('/v1/tokens/revoke', { body: { user: '42' } })), { closed: 1 });
assert.equal((await good(parley.GET('/v1/tokens/revoke'))).revocations[0]?.user, '42');
await good(parley.POST('/v1/tokens/unrevoke', { body: { user: '42' } }));
assert.deepEqual(await good(parley.POST('/v1/sessions/end', { body: { user: '42' } })), { ended: 0 });
await good(parley.POST('/v1/drain', { body: { worker: 1, within: '0s' } }));

const description = await good(parley.GET('/openapi.json'));
for (const [path, methods] of Object.entries(description.paths)) {
  for (const method of Object.keys(methods as object)) {
    assert.ok(path === '/v1/socket' || called.has(`${method.toUpperCase()} ${path}`), `${method} ${path} is not called here`);
  }
}
console.log(`${called.size} operations`);
