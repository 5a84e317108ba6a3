// The receivers: one request per line on standard input, one answer per line on standard output.
import { createInterface } from 'node:readline';
import { io } from 'socket.io-client';

const PAYLOAD_BYTES = 200;
const ENTER_AT_ONCE = 100;
const LOOK_EVERY_MS = 2;

let seats = [];
let last = 0;
let started = 0n;

// A receiver: the numbers that it was given, and when it had all.
class Seat {
  numbers = [];
  contiguous = 0;
  ahead = new Set();
  complete = null;

  constructor(port, topic) {
    this.socket = io(`http://127.0.0.1:${port}`, {
      transports: ['websocket'],
      forceNew: true,
      reconnection: false,
      auth: { topic },
    });
    this.socket.on('event', ({ n, pad }) => this.take(n, pad));
  }

  take(n, pad) {
    const empty = `{"n":${n},"pad":""}`;
    const number = pad.length + empty.length === PAYLOAD_BYTES ? n : 0;
    this.numbers.push(number);
    if (number === this.contiguous + 1) {
      this.contiguous = number;
      while (this.ahead.delete(this.contiguous + 1)) this.contiguous += 1;
    } else if (number > this.contiguous) {
      this.ahead.add(number);
    }
    if (this.complete === null && this.contiguous >= last) this.complete = process.hrtime.bigint();
  }

  connected() {
    return new Promise((resolve, reject) => {
      this.socket.once('connect', resolve);
      this.socket.once('connect_error', reject);
    });
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const arrived = () => seats.reduce((sum, seat) => sum + seat.numbers.length, 0);

const requests = {
  async enter({ topic, count, port }) {
    for (const seat of seats) seat.socket.disconnect();
    seats = [];
    while (seats.length < count) {
      const next = Math.min(ENTER_AT_ONCE, count - seats.length);
      const entering = Array.from({ length: next }, () => new Seat(port, topic));
      await Promise.all(entering.map((seat) => seat.connected()));
      seats.push(...entering);
    }
    return 'ok';
  },

  // The transport closes; the client of Socket.IO says no goodbye, so its session can be recovered.
  async cut() {
    for (const seat of seats) seat.socket.io.engine.close();
    return 'ok';
  },

  async expect(request) {
    last = request.last;
    for (const seat of seats) seat.complete = null;
    started = process.hrtime.bigint();
    return 'ok';
  },

  async resume() {
    for (const seat of seats) {
      // On a path that went silent the old connection is still open here as well.
      seat.socket.io.engine.close();
      seat.socket.connect();
    }
    return 'ok';
  },

  async collect({ quiet_ms: quietMs }) {
    let before = arrived();
    let since = performance.now();
    while (!seats.every((seat) => seat.complete !== null) && performance.now() - since < quietMs) {
      await pause(LOOK_EVERY_MS);
      const now = arrived();
      if (now !== before) [before, since] = [now, performance.now()];
    }
    const done = seats.map((seat) => seat.complete);
    const latest = done.reduce((max, at) => (at === null || max === null ? null : at > max ? at : max), 0n);
    return JSON.stringify({
      numbers: seats.map((seat) => seat.numbers),
      last,
      took_ns: latest === null ? null : Number(latest - started),
    });
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  try {
    console.log(await requests[request.do](request));
  } catch (error) {
    console.log(`error ${error.message}`);
  }
}
process.exit(0);
