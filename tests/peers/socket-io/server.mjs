// The server: says its port, then stores and sends what it is told to on standard input.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Server } from 'socket.io';

const PAYLOAD_BYTES = 200;

const http = createServer();
const io = new Server(http, {
  transports: ['websocket'],
  connectionStateRecovery: { maxDisconnectionDuration: 120_000, skipMiddlewares: true },
});
io.on('connection', (socket) => {
  if (!socket.recovered) socket.join(socket.handshake.auth.topic);
});

function payload(n) {
  const empty = JSON.stringify({ n, pad: '' });
  return { n, pad: 'x'.repeat(PAYLOAD_BYTES - empty.length) };
}

http.listen({ port: 0, host: '127.0.0.1', backlog: 1024 }, () => console.log(http.address().port));

for await (const line of createInterface({ input: process.stdin })) {
  const { topic, first, last } = JSON.parse(line);
  for (let n = first; n <= last; n += 1) io.to(topic).emit('event', payload(n));
  console.log('ok');
}
process.exit(0);
