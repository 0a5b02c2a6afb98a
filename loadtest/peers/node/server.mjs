// Rooms with socket.io and its Redis adapter, as one would write them: join, and a message for everybody in the room.
//
//   PORT=… REDIS_URL=redis://… ADAPTER=classic|sharded NODE_ENV=production node server.mjs

import { createServer } from 'node:http';

import { createAdapter, createShardedAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const { PORT, REDIS_URL, ADAPTER = 'classic' } = process.env;

const publisher = createClient({ url: REDIS_URL });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const server = createServer((request, response) => response.end());
const io = new Server(server, {
  transports: ['websocket'],
  perMessageDeflate: false,
  serveClient: false,
  adapter: ADAPTER === 'sharded'
    ? createShardedAdapter(publisher, subscriber)
    : createAdapter(publisher, subscriber),
});

let seq = 0;

io.on('connection', (socket) => {
  socket.on('join', async ({ roomID }, ack) => {
    await socket.join(roomID);
    ack({ ok: true });
  });
  socket.on('message', ({ roomID, message }, ack) => {
    const timestamp = Date.now();
    seq += 1;
    const id = `${timestamp}-${seq}`;
    io.to(roomID).emit('message', { roomID, message, id, timestamp, username: 'someone', platformid: 'p0' });
    ack({ ok: true, id });
  });
});

server.listen(Number(PORT), '127.0.0.1', 4096);
process.on('SIGTERM', () => process.exit(0));
