// npm's ws, as its README shows it; the frame of a broadcast is encoded once and sent to each member.
import { WebSocketServer, WebSocket } from "ws";

const [host, port] = process.argv[2].split(":");
const echo = process.argv[3] === "echo";
const rooms = new Map();
let ids = 0;

const server = new WebSocketServer({ host, port: Number(port), backlog: 4096, clientTracking: false });
server.on("connection", (socket) => {
  const id = String(++ids).padStart(24, "0");
  let room;
  socket.on("error", () => {});
  socket.on("close", () => rooms.get(room)?.delete(socket));
  socket.on("message", (raw, binary) => {
    if (echo) return socket.send(raw, { binary });
    const m = JSON.parse(raw);
    if (m.type === "join") {
      room = m.room;
      if (!rooms.has(room)) rooms.set(room, new Set());
      rooms.get(room).add(socket);
      socket.send(JSON.stringify({ type: "joined", room, members: rooms.get(room).size }));
    } else if (m.type === "broadcast") {
      const members = rooms.get(m.room);
      const out = Buffer.from(JSON.stringify({ type: "broadcast", room, from: id, data: m.data, timestamp: Math.floor(Date.now() / 1000) }));
      for (const other of members) if (other !== socket && other.readyState === WebSocket.OPEN) other.send(out, { binary: false });
      socket.send(JSON.stringify({ type: "broadcast_sent", room, recipients: members.size - 1 }));
    }
  });
});
