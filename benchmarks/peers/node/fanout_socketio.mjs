// Socket.IO: a room, and an event that everybody in it gets; WebSocket only.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], serveClient: false });

io.on("connection", (socket) => {
  if (socket.handshake.query.role === "listen") socket.join("room");
  else socket.on("publish", (data) => io.to("room").emit("message", data));
});

http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 2048 });
