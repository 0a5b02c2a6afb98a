// An HTTP proxy before the reference backend that can be told to misbehave for chosen requests.
//
// Rules come from any process over `POST /__rules`, so that tests in parallel can each break what is theirs: a rule
// acts on requests whose path begins with `path` and whose URL or body contains `match`.

import { createServer, request as httpRequest } from 'node:http';

/** Bodies remembered per rule. */
const REMEMBERED = 500;

/** What a broken service may do with a request. */
const ACTS = {
  pass: (rule, forward) => forward(),
  delay: (rule, forward) => { setTimeout(forward, rule.ms); },
  answer: (rule, forward, response) => {
    response.writeHead(rule.status ?? 200, { 'content-type': 'application/json', ...rule.headers });
    response.end(rule.body ?? '{}');
  },
  hang: () => {},
  cut: (rule, forward, response) => response.socket.destroy(),
};

export async function startProxy({ port, target }) {
  const rules = new Map();
  let nextId = 1;
  let backend = target;

  const control = {
    'POST /__rules': (body) => {
      const id = nextId;
      nextId += 1;
      rules.set(id, { ...body, id, requests: [] });
      return { id };
    },
    'GET /__rules': (_, id) => ({ requests: rules.get(id)?.requests ?? [] }),
    'DELETE /__rules': (_, id) => ({ removed: rules.delete(id) }),
  };

  const server = createServer(async (request, response) => {
    const chunks = [];
    request.on('error', () => {});
    response.on('error', () => {});
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const url = new URL(request.url, 'http://proxy');
    const command = control[`${request.method} ${url.pathname}`];
    if (command) {
      const answer = command(body.length ? JSON.parse(body) : null, Number(url.searchParams.get('id')));
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify(answer));
      return;
    }
    const text = `${decodeURIComponent(request.url)} ${body}`;
    const matching = [...rules.values()].filter((rule) => url.pathname.startsWith(rule.path) && text.includes(rule.match));
    for (const rule of matching) {
      if (rule.requests.length < REMEMBERED) rule.requests.push({ url: request.url, body: body.toString() });
    }
    const rule = matching.findLast(({ act }) => act !== 'pass') ?? { act: 'pass' };
    ACTS[rule.act](rule, () => forward(request, body, response, backend), response);
  });
  server.keepAliveTimeout = 60_000;
  await new Promise((resolve, reject) => { server.once('error', reject).listen(port, '127.0.0.1', resolve); });
  return {
    url: `http://127.0.0.1:${port}`,
    stop: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }),
  };
}

function forward(request, body, response, target) {
  const { host, connection, ...headers } = request.headers;
  const onward = httpRequest(`${target}${request.url}`, { method: request.method, headers }, (answer) => {
    const { connection: _, ...kept } = answer.headers;
    response.writeHead(answer.statusCode, kept);
    answer.pipe(response);
  });
  // A backend that is away looks to the caller as if nobody answered.
  onward.on('error', () => response.socket?.destroy());
  onward.end(body);
}

async function command(proxy, method, query, body) {
  const answer = await fetch(`${proxy}/__rules${query}`, { method, body: body && JSON.stringify(body) });
  return answer.json();
}

/** Makes the services misbehave for requests to `path` that contain `match`, until `clear` or the end of the test. */
export async function fault(t, proxy, { path, match = '', ...rule }) {
  const { id } = await command(proxy, 'POST', '', { path, match, ...rule });
  let cleared = false;
  const clear = async () => {
    if (cleared) return;
    cleared = true;
    await command(proxy, 'DELETE', `?id=${id}`);
  };
  t.after(clear);
  return { clear, requests: async () => (await command(proxy, 'GET', `?id=${id}`)).requests };
}

/** Remembers requests to `path` that contain `match` without touching them. */
export function watch(t, proxy, { path, match }) {
  return fault(t, proxy, { path, match, act: 'pass' });
}
