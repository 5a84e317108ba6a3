// Plays the client of `client.mjs` on standard input and output.
import { createInterface } from 'node:readline';
import { adapt } from './adapter.mjs';
import { Client } from './client.mjs';

// Standard output belongs to the protocol.
for (const level of ['debug', 'info', 'log']) console[level] = console.error;

const answer = adapt(Client, 'starter-js');
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.type === 'stop') process.exit(0);
  process.stdout.write(`${JSON.stringify(answer(request))}\n`);
}
