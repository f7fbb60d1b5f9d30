// Bun's server, which is built on uWebSockets: rooms are its topics.
const [hostname, port] = process.argv[2].split(":");
const echo = process.argv[3] === "echo";
let ids = 0;

const server = Bun.serve({
  hostname,
  port: Number(port),
  fetch(request, server) {
    if (server.upgrade(request, { data: { id: String(++ids).padStart(24, "0") } })) return;
    return new Response("a WebSocket is expected", { status: 426 });
  },
  websocket: {
    idleTimeout: 0,
    message(ws, raw) {
      if (echo) return ws.send(raw);
      const m = JSON.parse(raw);
      if (m.type === "join") {
        ws.subscribe(m.room);
        ws.send(JSON.stringify({ type: "joined", room: m.room, members: server.subscriberCount(m.room) }));
      } else if (m.type === "broadcast") {
        ws.publish(m.room, JSON.stringify({ type: "broadcast", room: m.room, from: ws.data.id, data: m.data, timestamp: Math.floor(Date.now() / 1000) }));
        ws.send(JSON.stringify({ type: "broadcast_sent", room: m.room, recipients: server.subscriberCount(m.room) - 1 }));
      }
    },
  },
});
