// npm's socket.io over WebSockets alone, as its documents show it; with history its connection state recovery is on.
import { createServer } from "node:http";
import { Server } from "socket.io";

const [host, port] = process.argv[2].split(":");
const history = process.argv[3] === "-history";
const recovery = { maxDisconnectionDuration: 300_000, skipMiddlewares: true };

const server = createServer();
const io = new Server(server, { transports: ["websocket"], serveClient: false, ...(history && { connectionStateRecovery: recovery }) });
io.on("connection", (socket) => {
  socket.on("join", (room) => {
    socket.join(room);
    socket.emit("joined", room);
  });
  socket.on("broadcast", (room, data) => {
    socket.to(room).emit("message", data);
    socket.emit("sent", room);
  });
});
server.listen({ host, port: Number(port), backlog: 4096 });
