// A chat in the terminal: node chat.mjs <node> <backend> <user> <room>
import { createInterface } from 'node:readline';
import { io } from 'socket.io-client';

const [node, backend, username, roomID] = process.argv.slice(2);
if (!roomID) {
  console.error('usage: node chat.mjs <node address> <backend address> <user> <room>');
  process.exit(64);
}
const login = await fetch(`${backend}/login`, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ username }),
});
if (!login.ok) {
  console.error(`login refused: ${login.status} ${await login.text()}`);
  process.exit(69);
}
const { accessToken, refreshToken } = await login.json();
const socket = io(node, { auth: { accessToken, refreshToken, userAgent: 'Mozilla terminal', username } });
let lastmessage;

const show = ({ username: from, message, timestamp }) =>
  console.log(`${new Date(timestamp).toLocaleTimeString()}  ${from}: ${message}`);
const seen = (message) => {
  lastmessage = message.timestamp;
  show(message);
};

socket.on('connect', () => {
  console.log(`connected to ${node} as ${username}; write a line to say it in ${roomID}, Ctrl-D to leave`);
  socket.emit('join', { roomID, lastmessage }, (ack) => ack.ok || console.log(`cannot join: ${ack.message}`));
});
socket.on('disconnect', (reason) => console.log(`disconnected (${reason}); reconnecting…`));
socket.on('connect_error', (error) => console.log(`cannot connect: ${error.message}`));
socket.on('security:notice', ({ message }) => console.log(`notice: ${message}`));
socket.on('previousMessages', (messages) => messages.forEach(seen));
socket.on('message', seen);
socket.on('editMessage', ({ id, message }) => console.log(`(message ${id} now reads: ${message})`));
socket.on('deleteMessage', ({ id }) => console.log(`(message ${id} was deleted)`));

const lines = createInterface({ input: process.stdin });
lines.on('line', (message) => {
  if (message) socket.emit('message', { roomID, message }, (ack) => ack.ok || console.log(`not sent: ${ack.message}`));
});
lines.on('close', () => setTimeout(() => socket.disconnect(), 300));
