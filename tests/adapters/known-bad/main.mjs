// Plays a client or an adapter with one defect: `node main.mjs DEFECT`.
import { createInterface } from 'node:readline';
import { adapt } from '../starter-js/adapter.mjs';
import { Client } from '../starter-js/client.mjs';
import { clients } from './clients.mjs';

/** The request of a case at which an adapter shows its defect. */
const MOMENT = 12;
/** The longest line that the protocol allows, in bytes. */
const LINE_MAX = 1 << 20;

/** What adapters with a defect write instead of a reply: the lines, or nothing. */
const adapters = {
  'answers-twice': (_, reply) => [reply, reply],
  dies: () => process.exit(3),
  garbage: () => ['this is no JSON'],
  hangs: () => [],
  'too-long': (_, reply) => [JSON.stringify({ ...JSON.parse(reply), padding: 'x'.repeat(LINE_MAX) })],
  'unknown-type': (_, reply) => [JSON.stringify({ ...JSON.parse(reply), type: 'finished' })],
  'wrong-n': (request, reply) => [JSON.stringify({ ...JSON.parse(reply), n: request.n + 1 })],
};

/** What such adapters do at other moments. */
const others = {
  'bad-hello': ({ type }, reply) => (type === 'hello' ? { ...reply, nonce: 'guessed' } : reply),
  'bad-version': ({ type }, reply) => (type === 'hello' ? { ...reply, protocol: 2 } : reply),
  'late-effect': (_, reply) => (reply.next ? { ...reply, next: reply.next + 7 } : reply),
  'never-stops': (_, reply) => reply,
};

const [defect] = process.argv.slice(2);
if (![clients, adapters, others].some((them) => defect in them)) {
  const names = [clients, adapters, others].flatMap(Object.keys).sort();
  console.error(`usage: node main.mjs DEFECT; there are ${names.join(', ')}`);
  process.exit(2);
}

const answer = adapt(clients[defect] ?? Client, `known-bad-${defect}`);
let requests = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.type === 'stop') {
    if (defect !== 'never-stops') process.exit(0);
    setInterval(() => {}, LINE_MAX); // keeps the process alive
    continue;
  }
  requests = request.type === 'reset' ? 0 : requests + 1;
  const reply = JSON.stringify((others[defect] ?? ((_, it) => it))(request, answer(request)));
  const twist = requests === MOMENT ? adapters[defect] : undefined;
  for (const text of twist?.(request, reply) ?? [reply]) process.stdout.write(`${text}\n`);
}
