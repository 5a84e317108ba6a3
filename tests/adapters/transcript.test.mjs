// Plays transcripts to adapters without a simulator: `node --test tests/adapters/`. A transcript has
// a request and the effects that it must have on each line; `until: "next"` stands for what the last
// reply called `next`, and an effect has at least the fields that are named.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Plays a transcript to the adapter that `args` of node start; how the process ended. */
async function play(name, args) {
  const adapter = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'ignore'] });
  const ended = new Promise((resolve) => adapter.on('exit', resolve));
  const replies = createInterface({ input: adapter.stdout })[Symbol.asyncIterator]();
  try {
    let next = null;
    for (const line of readFileSync(here(`transcripts/${name}.jsonl`), 'utf8').trim().split('\n')) {
      const { request, effects } = JSON.parse(line);
      if (request.until === 'next') request.until = next;
      adapter.stdin.write(`${JSON.stringify(request)}\n`);
      const { value, done } = await replies.next();
      assert.ok(!done, `no reply to ${line}`);
      const reply = JSON.parse(value);
      if (request.type === 'hello') assert.equal(reply.nonce, request.nonce);
      else {
        assert.equal(reply.n, request.n, line);
        assert.equal(reply.now, request.at ?? request.until ?? request.now, line);
        assert.deepEqual(reply.effects.map((it, nth) => named(it, effects[nth])), effects, line);
      }
      next = reply.next;
    }
    adapter.stdin.write('{"type":"stop"}\n');
    return await ended;
  } finally {
    adapter.kill();
  }
}

/** Of an effect only the fields that are expected. */
function named(effect, expected = effect) {
  return Object.fromEntries(Object.keys(expected).map((field) => [field, effect[field]]));
}

test('the starter client does what its transcript says', async () => {
  assert.equal(await play('starter', [here('starter-js/main.mjs')]), 0);
});

const sdk = here('relaycast-sdk/main.mjs');
const skip = !existsSync(here('relaycast-sdk/node_modules')) && '`npm ci` in relaycast-sdk/ is wanted';
test('the package of Relaycast does what its transcript says', { skip }, async () => {
  assert.equal(await play('relaycast-sdk', [sdk]), 0);
});

for (const defect of ['bad-hello', 'cursor-jumps', 'dies', 'garbage', 'loses-one', 'panics', 'wrong-n']) {
  test(`a transcript shows the defect \`${defect}\``, async () => {
    await assert.rejects(play('starter', [here('known-bad/main.mjs'), defect]));
  });
}
