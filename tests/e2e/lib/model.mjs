// A scripted model behind an OpenAI-compatible endpoint: it repeats the question, word by word. `slow N ms` in the question
// is a pause of N ms before each word; `refuse` is an error.

import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const chunk = (delta, finish_reason = null) => `data: ${JSON.stringify({
  id: 'chatcmpl-e2e', object: 'chat.completion.chunk', created: 0, model: 'echo', choices: [{ index: 0, delta, finish_reason }],
})}\n\n`;

export async function startModel(port) {
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const part of request) body += part;
    if (!request.url.endsWith('/chat/completions')) {
      response.writeHead(404).end('{}');
      return;
    }
    const question = JSON.parse(body).messages.findLast(({ role }) => role === 'user')?.content ?? '';
    const text = typeof question === 'string' ? question : question.map((part) => part.text ?? '').join('');
    if (/\brefuse\b/.test(text)) {
      response.writeHead(400, { 'content-type': 'application/json' }).end('{"error": {"message": "no", "code": "invalid_prompt"}}');
      return;
    }
    const pace = Number(/\bslow (\d+) ms\b/.exec(text)?.[1] ?? 0);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(chunk({ role: 'assistant', content: '' }));
    for (const word of `you said: ${text}`.split(/(?<= )/)) {
      if (pace) await sleep(pace);
      if (response.destroyed) return;
      response.write(chunk({ content: word }));
    }
    response.end(`${chunk({}, 'stop')}data: [DONE]\n\n`);
  });
  await new Promise((resolve, reject) => { server.once('error', reject).listen(port, '127.0.0.1', resolve); });
  return {
    url: `http://127.0.0.1:${port}/v1`,
    stop: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }),
  };
}
