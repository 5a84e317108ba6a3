// The adapter between a client of events and a simulator: a reply to each request. It translates,
// and repairs nothing. To attach a client of your own, copy this file and `main.mjs`, and replace
// what is called on `client` and what the client calls on its port.
import { createHash } from 'node:crypto';

/** The features of this client: see docs/conformance.md. */
const features = [
  'extension', 'from_beginning', 'handler.async', 'handler.fail', 'open_handler.fail',
  'sock.alive', 'sock.sent', 'ping.configured', 'suspend',
];

const base64 = (text) => Buffer.from(text).toString('base64');
const plain = (text) => Buffer.from(text, 'base64').toString();
const cursor = (position) => ({ cursor: base64(JSON.stringify(position)) });

/** What the client has instead of sockets, a disk and an application. */
function portTo(url, token, effects) {
  const effect = (type, fields) => void effects.push({ type, ...fields });
  const headers = [['authorization', `Bearer ${token}`]];
  return {
    dial: (conn, protocols) => effect('sock.connect', { conn, url, headers, protocols }),
    send: (conn, text) => effect('sock.send', { conn, text }),
    close: (conn, code, reason) => effect('sock.close', { conn, code, reason }),
    read: (conn, on) => effect('sock.read', { conn, on }),
    store: (id, position) => effect('store.commit', { id, writes: cursor(position) }),
    offer(ticket, { text }, position) {
      const commits = position ? cursor(position) : {};
      effect('app.event', { ticket, event: text, epoch: position?.epoch, commits });
    },
    opened: (ticket) => effect('app.open', { ticket }),
    joined: (position) => effect('app.joined', position),
    position: (position) => effect('app.position', position),
    gap(verdict, lost, position) {
      effect('app.gap', { verdict, lost: lost.map(({ from, to }) => [from, to]), ...position });
    },
    resynced: ({ replayed = 0, gap_detected }) => effect('app.resynced', { replayed, gap_detected }),
    gaveUp: ({ text }) => effect('app.gave_up', { event: text }),
    note: (text) => effect('app.state', { text }),
  };
}

/** Numbers from 0 to 1 that follow from a text. */
function seeded(text) {
  let count = 0;
  return () => {
    count += 1;
    return createHash('sha256').update(`${text}/${count}`).digest().readUInt32LE() / 2 ** 32;
  };
}

/** A function that answers the requests of a simulator with what a `Client` does. */
export function adapt(Client, name) {
  let client = null;
  let effects = [];
  let epoch = 0; // the wall time at virtual time 0
  let skew = 0;

  function reset({ seed, host, life, now, epoch_ms, config, storage = {} }) {
    const { base_url, token, ...rest } = config.events_client;
    const url = `${base_url.replace(/^http/, 'ws')}/v1/ws`;
    epoch = epoch_ms;
    effects = [];
    client = new Client({
      config: rest,
      position: storage.cursor ? JSON.parse(plain(storage.cursor)) : null,
      random: seeded(`${seed}/${host}/${life}`),
      wall: () => epoch + client.now + skew,
      port: portTo(url, token, effects),
    });
    client.now = now;
  }

  /** The function of the client that is told of an event. */
  function told({ type, conn, ticket, ok, text = '', protocol, problem, count, id, error }) {
    switch (type) {
      case 'app.connect': return () => client.start();
      case 'app.done': return () => client.done(ticket, ok);
      case 'sock.open': return () => client.opened(conn, protocol);
      case 'sock.message': return () => client.message(conn, text);
      case 'sock.sent': return () => client.sent(conn, count);
      case 'sock.alive': return () => client.heard(conn);
      case 'sock.close': return () => client.closed(conn);
      case 'sock.error': return () => client.dialFailed(conn, problem);
      case 'store.done': return () => client.stored(id, error == null);
      case 'os.suspend': return () => client.timeout();
      default: throw new Error(`the event \`${type}\` is not known`);
    }
  }

  /** Fires timers up to the first instant that has an effect. */
  function advance(until) {
    for (let due = client.deadline(); due !== null && due <= until; due = client.deadline()) {
      client.now = Math.max(client.now, due);
      client.timeout();
      if (effects.length > 0) return;
    }
    client.now = until;
  }

  /** Calls the client; what it throws ends its process. */
  function call(body) {
    try {
      body();
    } catch (error) {
      console.error(error);
      effects.push({ type: 'panic', message: String(error) });
    }
  }

  function done(n) {
    const reply = { type: 'done', n, now: client.now, effects: [...effects], next: client.deadline() };
    effects.length = 0;
    return reply;
  }

  return function answer(request) {
    skew = request.skew_ms ?? 0;
    switch (request.type) {
      case 'hello':
        if (!request.protocol.includes(1)) throw new Error('only version 1 is spoken here');
        return {
          type: 'hello', protocol: 1, nonce: request.nonce, name, version: '1.0.0',
          language: 'JavaScript', roles: ['events.client'], features,
          clock: 'virtual', entropy: 'seeded', storage: 'virtual',
        };
      case 'reset':
        reset(request);
        return done(request.n);
      case 'deliver':
        client.now = request.at;
        call(told(request.event));
        return done(request.n);
      case 'advance':
        call(() => advance(request.until));
        return done(request.n);
      case 'settle':
        return done(request.n);
      default:
        throw new Error(`the request \`${request.type}\` is not known`);
    }
  };
}
