// Just enough of the Redis protocol to look at keys.

import { connect } from 'node:net';

/** Reads one reply at `at`; `undefined` while it is not complete. */
function readReply(text, at) {
  const end = text.indexOf('\r\n', at);
  if (end < 0) return undefined;
  const [type, head, next] = [text[at], text.slice(at + 1, end), end + 2];
  switch (type) {
    case '+': return { value: head, next };
    case '-': return { value: new Error(head), next };
    case ':': return { value: Number(head), next };
    case '$': {
      const length = Number(head);
      if (length < 0) return { value: null, next };
      if (text.length < next + length + 2) return undefined;
      return { value: Buffer.from(text.slice(next, next + length), 'latin1').toString(), next: next + length + 2 };
    }
    case '*': {
      const [items, count] = [[], Number(head)];
      let position = next;
      for (let i = 0; i < count; i += 1) {
        const item = readReply(text, position);
        if (!item) return undefined;
        items.push(item.value);
        position = item.next;
      }
      return { value: items, next: position };
    }
    default: throw new Error(`unexpected reply ${type}`);
  }
}

/** One command on a connection of its own; on a cluster to the server that has its key, whichever is asked. */
export async function redis(port, ...command) {
  try {
    return await send(port, command);
  } catch (error) {
    const moved = /^MOVED \d+ .*:(\d+)$/.exec(error.message);
    if (!moved) throw error;
    return send(Number(moved[1]), command);
  }
}

function send(port, command) {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1' });
    let text = '';
    const settle = (act, value) => { socket.destroy(); act(value); };
    socket.setTimeout(5_000, () => settle(reject, new Error(`Redis did not answer ${command[0]}`)));
    socket.once('error', (error) => settle(reject, error));
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      const reply = readReply(text, 0);
      if (reply) settle(reply.value instanceof Error ? reject : resolve, reply.value);
    });
    const parts = command.map((part) => Buffer.from(String(part)));
    socket.write(Buffer.concat([
      Buffer.from(`*${parts.length}\r\n`),
      ...parts.flatMap((part) => [Buffer.from(`$${part.length}\r\n`), part, Buffer.from('\r\n')]),
    ]));
  });
}
