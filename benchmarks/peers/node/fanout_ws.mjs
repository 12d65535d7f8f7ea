// ws: whoever asks for /listen gets what comes to /publish, by the loop of the package's manual.
import { WebSocket, WebSocketServer } from "ws";

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 2048 });
const listeners = new Set();

server.on("connection", (socket, request) => {
  socket.on("error", () => socket.terminate());
  if (request.url === "/listen") {
    listeners.add(socket);
    socket.on("close", () => listeners.delete(socket));
    return;
  }
  socket.on("message", (data, isBinary) => {
    for (const listener of listeners) {
      if (listener.readyState === WebSocket.OPEN) listener.send(data, { binary: isBinary });
    }
  });
});
