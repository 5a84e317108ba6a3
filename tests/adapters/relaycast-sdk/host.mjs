// A virtual browser for one client: a clock, randomness and a WebSocket that belong to the
// simulator. Nothing in here knows what the client is; it has to be loaded before the client.
import { createHash } from 'node:crypto';
import FakeTimers from '@sinonjs/fake-timers';

// Without a list the package would also replace what the adapter itself waits with.
const toFake = ['Date', 'setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'];

let clock = FakeTimers.install({ toFake });
let sockets = new Map();
let conns = 0;

export const host = {
  /** Virtual time; the clock's own is the wall time that belongs to it. */
  now: 0,
  /** The wall time at virtual time 0. */
  epoch: 0,
  /** What the client did since the last reply. */
  effects: [],

  /** A new process: nothing is left of the last one. */
  reset({ seed, host: name, life, now, epoch_ms, skew_ms = 0 }) {
    clock.uninstall();
    [this.now, this.epoch, this.effects, sockets, conns] = [now, epoch_ms, [], new Map(), 0];
    clock = FakeTimers.install({ now: epoch_ms + now + skew_ms, toFake });
    Math.random = seeded(`${seed}/${name}/${life}`);
  },

  /** The earliest timer. */
  next() {
    const timer = clock.timerHeap?.peek();
    return timer ? Math.ceil(timer.callAt - clock.now + this.now) : null;
  },

  /** Fires what is due. With `stop` it ends at the first instant that had an effect. */
  async advance(until, stop) {
    for (let due = this.next(); due !== null && due <= until; due = this.next()) {
      if (stop && this.effects.length > 0 && due > this.now) return;
      const wall = clock.now;
      this.call(() => clock.next());
      this.now += clock.now - wall;
      await this.drain();
    }
    if (stop && this.effects.length > 0) return;
    clock.tick(until - this.now);
    this.now = until;
  },

  /** The process stood still until `at`: each timer that is overdue fires once. */
  suspend(at) {
    this.call(() => clock.jump(at - this.now));
    this.now = at;
  },

  /** The wall clock is wrong by so much from here on; timers do not care. */
  skew(ms) {
    clock.setSystemTime(this.epoch + this.now + ms);
  },

  /** Passes on what happened to a socket. */
  socket({ type, conn, text, b64, code = 1006, reason = '' }) {
    const socket = sockets.get(conn);
    if (type === 'sock.open' && socket.readyState === WebSocket.CONNECTING) {
      socket.readyState = WebSocket.OPEN;
      socket.fire('open', {});
    } else if (type === 'sock.message' && socket.readyState === WebSocket.OPEN) {
      socket.fire('message', { data: text ?? new Blob([Buffer.from(b64, 'base64')]) });
    } else if (type === 'sock.close' || type === 'sock.error') {
      sockets.delete(conn);
      socket.readyState = WebSocket.CLOSED;
      if (type === 'sock.error') socket.fire('error', {});
      socket.fire('close', { code, reason });
    }
  },

  /** Calls the client; what it throws ends its process. */
  call(body) {
    try {
      body();
    } catch (error) {
      panic(error);
    }
  },

  /** Lets every chain of promises end. */
  drain: () => new Promise((resolve) => setImmediate(resolve)),
};

/** What the application throws when it is told to: a browser would report it and go on. */
export class ToldToFail extends Error {}

const panic = (error) => {
  console.error(error?.stack);
  if (error instanceof ToldToFail) return;
  host.effects.push({ type: 'panic', message: String(error) });
};
process.on('uncaughtException', panic).on('unhandledRejection', panic);

for (const level of ['debug', 'error', 'info', 'log', 'warn']) {
  console[level] = (...words) => process.stderr.write(`${words.map(String).join(' ')}\n`);
}

globalThis.WebSocket = class WebSocket {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSING = 2;
  static CLOSED = 3;
  readyState = WebSocket.CONNECTING;
  conn = (conns += 1);

  constructor(url, protocols = []) {
    sockets.set(this.conn, this);
    const offered = [protocols].flat();
    const effect = { type: 'sock.connect', conn: this.conn, url: String(url), protocols: offered };
    host.effects.push(effect);
  }

  send(text) {
    if (this.readyState === WebSocket.CONNECTING) throw new Error('InvalidStateError');
    if (this.readyState !== WebSocket.OPEN) return;
    host.effects.push({ type: 'sock.send', conn: this.conn, text: String(text) });
  }

  close(code, reason = '') {
    if (this.readyState >= WebSocket.CLOSING) return;
    this.readyState = WebSocket.CLOSING;
    host.effects.push({ type: 'sock.close', conn: this.conn, code, reason });
  }

  fire(type, fields) {
    host.call(() => this[`on${type}`]?.({ type, ...fields }));
  }
};

/** A generator of numbers from 0 to 1 (sfc32). */
function seeded(text) {
  const words = createHash('sha256').update(text).digest();
  let [a, b, c, d] = [0, 4, 8, 12].map((at) => words.readInt32LE(at));
  return () => {
    const sum = (a + b + d) | 0;
    [a, b, d] = [b ^ (b >>> 9), (c + (c << 3)) | 0, (d + 1) | 0];
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
}
