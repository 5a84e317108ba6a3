// The unmodified npm package `@relaycast/sdk` as `events.client`, behind the lockstep adapter
// protocol. The adapter passes on what is said and repairs nothing.
import { readFileSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { host, ToldToFail } from './host.mjs';

const { WsClient } = await import('@relaycast/sdk');
const installed = new URL('node_modules/@relaycast/sdk/package.json', import.meta.url);
const { version } = JSON.parse(readFileSync(installed, 'utf8'));
// What the package tells of itself; all else that it tells is an event of the stream.
const STATES = ['close', 'error', 'permanently_disconnected', 'pong', 'reconnecting'];

let client = null;
let failures = { event: 0, open: 0 }; // how many calls of the application are still to fail
let frame = null; // the text that the package is reading

/** Whether a call of the application is to fail. */
function fails(kind) {
  if (failures[kind] === 0) return false;
  failures[kind] -= 1;
  return true;
}

/** The application: it listens to everything, and fails when it is told to. */
function told(event) {
  if (STATES.includes(event.type)) {
    host.effects.push({ type: 'app.state', text: JSON.stringify(event) });
  } else if (event.type === 'open') {
    host.effects.push({ type: 'app.open' });
    if (fails('open')) throw new ToldToFail('the open handler was told to fail');
  } else if (event.type === 'resynced') {
    const { replayed, gapDetected } = event;
    host.effects.push({ type: 'app.resynced', replayed, gap_detected: gapDetected });
  } else {
    const failed = fails('event');
    const text = frame ?? JSON.stringify({ ...event, agent_seq: event.agentSeq });
    host.effects.push({ type: 'app.event', event: text, failed });
    if (failed) throw new ToldToFail('the handler was told to fail');
  }
}

function reset(request) {
  host.reset(request);
  failures = { event: 0, open: 0 };
  const { base_url: baseUrl, token, reconnect_ms } = request.config.events_client;
  const [reconnectBaseDelayMs, reconnectMaxDelayMs] = reconnect_ms;
  client = new WsClient({ baseUrl, token, reconnectBaseDelayMs, reconnectMaxDelayMs });
  client.on('*', told);
}

async function deliver(event, at) {
  if (event.type === 'os.suspend') return host.suspend(at);
  await host.advance(at, false);
  switch (event.type) {
    case 'app.connect':
      return host.call(() => client.connect());
    case 'handler.fail':
      failures.event += event.times;
      return;
    case 'open_handler.fail':
      failures.open += event.times;
      return;
    case 'sock.open':
    case 'sock.message':
    case 'sock.close':
    case 'sock.error':
      frame = event.text ?? null;
      host.socket(event);
      frame = null;
      return;
    default:
      throw new Error(`the event \`${event.type}\` is not known`);
  }
}

async function answer(request) {
  const { type, n, nonce, protocol, at, until, event, skew_ms = 0 } = request;
  switch (type) {
    case 'hello':
      if (!protocol.includes(1)) throw new Error('the simulator does not speak version 1');
      return {
        type, protocol: 1, nonce, name: '@relaycast/sdk', version, language: 'JavaScript',
        homepage: 'https://github.com/AgentWorkforce/relaycast',
        issues: 'https://github.com/AgentWorkforce/relaycast/issues',
        roles: ['events.client'],
        features: ['handler.fail', 'open_handler.fail', 'sock.closed', 'suspend'],
        clock: 'virtual', entropy: 'seeded', storage: 'none',
      };
    case 'reset':
      reset(request);
      break;
    case 'deliver':
      host.skew(skew_ms);
      await deliver(event, at);
      break;
    case 'advance':
      host.skew(skew_ms);
      await host.advance(until, true);
      break;
    case 'settle':
      break;
    default:
      throw new Error(`the request \`${type}\` is not known`);
  }
  await host.drain();
  const { now, effects } = host;
  host.effects = [];
  return { type: 'done', n, now, effects, next: host.next() };
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.type === 'stop') break;
  try {
    writeSync(1, `${JSON.stringify(await answer(request))}\n`);
  } catch (error) {
    console.error(error.stack);
    process.exit(70);
  }
}
process.exit(0);
