// A client of the event-stream protocol, written from docs/spec/events.md: base contract and
// extension. It has no sockets, clock, randomness or disk; its port has, and reports back.
import { isGap, Malformed, parse } from './frames.mjs';

const SUBPROTOCOL = 'gapless.events.v1';
const CONNECT_MS = 10_000;
const NEGOTIATION_MS = 5_000;
const OPEN_HANDLERS_MS = 5_000;
const RESYNC_MS = 15_000;
const RETRY_MS = [100, 5_000];
const SINCE_MARGIN_MS = 30_000;
const QUEUE_BYTES = 1 << 20;
const HELD_EVENTS = 8_192;
const HELD_BYTES = 8 << 20;
const SEEN_IDS = 2_048;
const GAP_ASKS_MAX = 3;
const SLOW_NEGOTIATIONS_MAX = 5;
/** What anything in memory is counted with, beside its text. */
const OVERHEAD = 64;

/** Pauses that double up to a bound, with jitter to both sides. */
class Backoff {
  attempts = 0;

  constructor([least, most], jitter, random) {
    Object.assign(this, { least, most, jitter, random });
  }

  next() {
    const span = Math.min(this.least * 2 ** Math.min(this.attempts, 40), this.most);
    this.attempts += 1;
    return Math.max(1, Math.round(span * (1 - this.jitter + 2 * this.jitter * this.random())));
  }
}

export class Client {
  /** Milliseconds on a clock that never goes back; whoever calls sets it before. */
  now = 0;
  timers = new Map();
  connections = 0;
  tickets = 0;
  /** null while a pause runs. */
  link = null;
  slowNegotiations = 0;
  /** Which run of numbers the position belongs to. */
  timeline = 0;
  firstOpenedAt = null;
  lastEventAt = null;
  gapAsks = { after: 0, asks: 0 };
  queue = [];
  queueBytes = 0;
  inFlight = null;
  /** The newest event of the timeline that was offered, done or not. */
  lastOffered = null;
  seen = new Set();
  dirty = false;
  unsavedJoin = false;
  saving = null;
  stores = 0;

  constructor({ config, position, random, wall, port }) {
    this.config = config;
    this.port = port;
    this.wall = wall;
    this.random = random;
    /** `{epoch, sequence}`, null if there is none yet. */
    this.position = position;
    this.offers = config.extension;
    this.reconnect = new Backoff(config.reconnect_ms, 0.5, random);
    this.saveRetry = new Backoff(RETRY_MS, 0.25, random);
  }

  // ---- time

  deadline() {
    return this.timers.size > 0 ? Math.min(...this.timers.values()) : null;
  }

  /** Acts on each timer that is due, once. */
  timeout() {
    const due = [...this.timers].filter(([, at]) => at <= this.now).sort(([, a], [, b]) => a - b);
    for (const [name, at] of due) {
      if (this.timers.get(name) !== at) continue;
      this.timers.delete(name);
      this[name]();
    }
  }

  set(name, delay) {
    this.timers.set(name, this.now + delay);
  }

  stop(...names) {
    for (const name of names) this.timers.delete(name);
  }

  connectTimer() {
    this.drop(1000, 'the connection did not open in time');
  }

  /** A server that has spoken the extension before is slow; any other merely echoes the offer. */
  negotiationTimer() {
    if (this.position?.epoch && this.slowNegotiations < SLOW_NEGOTIATIONS_MAX) {
      this.slowNegotiations += 1;
      this.drop(4003, 'the server did not begin to speak in time');
      return;
    }
    this.link.mode = 'base';
    this.askWhenReady();
  }

  openHandlersTimer() {
    this.openHandlersRan();
  }

  resyncTimer() {
    this.drop(4003, 'the resync made no progress');
  }

  reconnectTimer() {
    this.dial();
  }

  pingTimer() {
    this.set('pingTimer', this.config.ping_every_ms);
    if (this.link.pingUnwritten) return;
    this.link.pingUnwritten = true;
    if (this.link.reading) this.set('unwrittenTimer', this.unwrittenMs());
    this.send({ type: 'ping' });
  }

  unwrittenTimer() {
    this.drop(4003, 'the server takes nothing and says nothing');
  }

  pongTimer() {
    this.drop(4003, 'nothing was heard from the server');
  }

  offerTimer() {
    this.offer();
  }

  saveTimer() {
    this.save();
  }

  // ---- the link

  start() {
    if (this.position !== null) this.kept(this.position, true);
    this.dial();
  }

  dial() {
    this.connections += 1;
    this.link = { conn: this.connections, open: false };
    this.set('connectTimer', CONNECT_MS);
    this.port.dial(this.link.conn, this.offers ? [SUBPROTOCOL] : []);
  }

  dialFailed(conn, problem) {
    if (this.link?.conn !== conn || this.link.open) return;
    if (problem === 'subprotocol' && this.offers) {
      this.offers = false;
      this.dial();
    } else this.lost(`could not connect: ${problem}`);
  }

  opened(conn, protocol) {
    if (this.link?.conn !== conn || this.link.open) return this.port.close(conn, 1000, 'replaced');
    this.stop('connectTimer');
    const taken = this.offers && protocol === SUBPROTOCOL;
    if (taken) this.set('negotiationTimer', NEGOTIATION_MS);
    this.set('openHandlersTimer', OPEN_HANDLERS_MS);
    this.set('pingTimer', this.config.ping_every_ms);
    this.link = {
      conn,
      open: true,
      /** undecided, base, extension */
      mode: taken ? 'undecided' : 'base',
      taken,
      first: this.firstOpenedAt === null,
      /** opening, asked, replaying, active */
      phase: 'opening',
      openTicket: (this.tickets += 1),
      handlersRan: false,
      /** The highest contiguous number that arrived, finished or not. */
      received: 0,
      /** The position's new epoch, once the replay has shown that it has what was offered last. */
      unconfirmed: null,
      held: [],
      heldBytes: 0,
      reading: true,
      /** Of what was sent and has not left: whether it is a ping. */
      unsent: [],
      pingUnwritten: false,
      pongOwed: false,
      /** What was received when the last pong showed a head beyond it. */
      behindAt: null,
    };
    this.clearQueue(); // it comes again with the resync
    this.gapAsks = { after: 0, asks: 0 };
    this.firstOpenedAt ??= this.wall();
    return this.port.opened(this.link.openTicket);
  }

  closed(conn) {
    if (this.link?.conn === conn) this.lost('the connection is over');
  }

  drop(code, reason) {
    this.port.close(this.link.conn, code, reason);
    this.lost(reason);
  }

  lost(reason) {
    this.stop('connectTimer', 'negotiationTimer', 'openHandlersTimer', 'resyncTimer');
    this.stop('pingTimer', 'unwrittenTimer', 'pongTimer');
    this.link = null;
    const pause = this.reconnect.next();
    this.set('reconnectTimer', pause);
    this.port.note(`disconnected: ${reason}; again in ${pause} ms`);
  }

  send(frame) {
    this.link.unsent.push(frame.type === 'ping');
    this.port.send(this.link.conn, JSON.stringify(frame));
  }

  /** The oldest frames have left for the network. */
  sent(conn, count) {
    if (this.link?.conn !== conn || !this.link.unsent.splice(0, count).includes(true)) return;
    this.link.pingUnwritten = false;
    this.stop('unwrittenTimer');
    if (this.link.pongOwed) return; // the oldest ping counts
    this.link.pongOwed = true;
    if (this.link.reading) this.set('pongTimer', this.config.pong_timeout_ms);
  }

  /** Anything that arrives is a sign of life, and progress of a resync. */
  heard(conn) {
    const { link } = this;
    if (link?.conn !== conn || !link.open) return false;
    link.pongOwed = false;
    this.watch();
    const waits = link.phase === 'replaying' || (link.phase === 'asked' && link.mode === 'base');
    if (waits && link.reading) this.set('resyncTimer', RESYNC_MS);
    return true;
  }

  unwrittenMs() {
    return this.config.ping_every_ms + this.config.pong_timeout_ms;
  }

  /** The server may be silent anew. Its silence proves nothing while nobody reads. */
  watch() {
    const { pongOwed, pingUnwritten, reading } = this.link;
    this.stop('unwrittenTimer', 'pongTimer');
    if (reading && pingUnwritten) this.set('unwrittenTimer', this.unwrittenMs());
    if (reading && pongOwed) this.set('pongTimer', this.config.pong_timeout_ms);
  }

  read(on) {
    this.link.reading = on;
    this.watch();
    const asks = on && ['asked', 'replaying'].includes(this.link.phase);
    if (asks) this.set('resyncTimer', RESYNC_MS);
    else this.stop('resyncTimer');
    this.port.read(this.link.conn, on);
  }

  /** Goes on reading once half of what may wait is worked off. */
  readOn() {
    const few = this.queue.length * 2 <= this.config.queue_events;
    if (!few || this.queueBytes * 2 > QUEUE_BYTES) return;
    if (this.link?.open && !this.link.reading && this.link.phase !== 'opening') this.read(true);
  }

  // ---- resync

  /** The application is done with an event or with an open handler, well or badly. */
  done(ticket, ok) {
    if (this.inFlight?.ticket === ticket) this.handled(ok);
    else if (this.link?.openTicket === ticket) this.openHandlersRan();
  }

  openHandlersRan() {
    this.stop('openHandlersTimer');
    this.link.handlersRan = true;
    this.askWhenReady();
  }

  askWhenReady() {
    const { phase, mode, handlersRan, first } = this.link;
    if (phase !== 'opening' || mode === 'undecided' || !handlersRan) return;
    const live = first && this.position === null && !this.config.from_beginning;
    if (mode === 'base' && live) {
      const held = this.takeHeld();
      this.activate();
      for (const event of held) this.event(event);
      this.readOn();
    } else this.ask();
  }

  ask() {
    const { link, position } = this;
    Object.assign(link, { phase: 'asked', unconfirmed: null, behindAt: null });
    this.takeHeld();
    this.clearQueue();
    const resync = { type: 'resync', last_seen_seq: position?.sequence ?? 0 };
    if (link.mode === 'base') {
      const since = (this.lastEventAt ?? this.firstOpenedAt) - SINCE_MARGIN_MS;
      resync.since = new Date(Math.max(0, since)).toISOString();
    } else if (position.epoch !== null) resync.epoch = position.epoch;
    this.set('resyncTimer', RESYNC_MS);
    this.send(resync);
    this.readOn();
  }

  mayAsk(received) {
    if (this.gapAsks.after !== received) this.gapAsks = { after: received, asks: 0 };
    return this.gapAsks.asks < GAP_ASKS_MAX;
  }

  /** Asks again for what is missing, or declares it lost. Returns whether it was declared. */
  hole(to) {
    const { received } = this.link;
    if (this.mayAsk(received)) {
      this.gapAsks.asks += 1;
      this.ask();
      return false;
    }
    this.enqueue({ lost: { from: received + 1, to }, verdict: 'unknown' });
    this.link.received = to;
    return true;
  }

  activate() {
    this.stop('resyncTimer');
    this.reconnect.attempts = 0;
    this.link.phase = 'active';
  }

  join(position) {
    this.position = position;
    this.dirty = true;
    this.unsavedJoin = true;
    this.port.note(`joins at ${position.sequence}`);
    this.save();
  }

  /** From here on the position counts other numbers: what is being handled moves nothing. */
  beginTimeline(position, verdict, lost = []) {
    this.timeline += 1;
    this.lastOffered = null;
    this.position = position;
    this.dirty = true;
    this.port.gap(verdict, lost, position); // before it is stored: a crash between tells it again
    this.save();
  }

  continueIn(epoch) {
    this.position = { ...this.position, epoch };
    this.dirty = true;
    this.save();
  }

  wentBack(epoch, sequence) {
    this.beginTimeline({ epoch, sequence }, 'ahead');
  }

  /** The replay has come to this number: is what was offered under it the same event? */
  confirm(sequence, event) {
    const { unconfirmed: epoch } = this.link;
    if (epoch === null) return;
    this.link.unconfirmed = null;
    const offered = this.lastOffered?.sequence === sequence ? this.lastOffered : null;
    if (offered && event && offered.text !== event.text) this.wentBack(epoch, sequence - 1);
    else this.continueIn(epoch);
  }

  // ---- frames

  message(conn, text) {
    if (!this.heard(conn)) return;
    let frame;
    try {
      frame = parse(text);
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      this.port.note(`ignores a frame: ${error.message}`);
      return;
    }
    if (this.link.mode === 'undecided' && !['stream', 'pong'].includes(frame.type)) {
      this.link.mode = 'base'; // the server echoes any offer
      this.stop('negotiationTimer');
      this.askWhenReady();
    }
    if (frame.type === 'event') {
      this.lastEventAt = this.wall();
      this.event(frame.event);
    } else this[frame.type](frame);
    this.offerNext();
  }

  stream({ epoch, head }) {
    if (this.link.mode === 'base' && this.link.taken) {
      this.drop(1000, 'the server speaks the extension after all');
    }
    if (this.link?.mode !== 'undecided') return;
    this.slowNegotiations = 0;
    this.link.mode = 'extension';
    this.stop('negotiationTimer');
    const sequence = this.config.from_beginning ? 0 : head;
    if (this.position === null) this.join({ epoch, sequence });
    this.askWhenReady();
  }

  resync_begin({ epoch, verdict, from, to, lost }) {
    const { link } = this;
    if (link.mode !== 'extension' || link.phase !== 'asked') return;
    link.phase = 'replaying';
    link.received = from - 1;
    this.set('resyncTimer', RESYNC_MS);
    if (isGap(verdict)) {
      this.beginTimeline({ epoch, sequence: from - 1 }, verdict, lost);
      return;
    }
    if (this.position.epoch === epoch) return;
    // What was offered after the position is the log's only if the log still has it.
    if ((this.lastOffered?.sequence ?? 0) < from) this.continueIn(epoch);
    else if (to < from) this.wentBack(epoch, from - 1);
    else link.unconfirmed = epoch;
  }

  resync_ack(ack) {
    const { mode, phase, received } = this.link;
    if (mode === 'extension' && phase === 'replaying') {
      if (ack.current_seq > received && !this.hole(ack.current_seq)) return;
      this.confirm(ack.current_seq, null);
    } else if (mode === 'base' && phase === 'asked') {
      if (!this.releaseHeld(ack)) return;
    } else if (mode !== 'base' || phase !== 'active') return;
    this.enqueue({ resynced: ack });
    this.activate();
  }

  gap({ from, to }) {
    const { mode, phase, received } = this.link;
    if (mode !== 'extension' || !['replaying', 'active'].includes(phase) || to <= received) return;
    if (from > received + 1 && !this.hole(from - 1)) return;
    const lost = { from: this.link.received + 1, to };
    this.link.received = to;
    this.confirm(to, null);
    this.enqueue({ lost, verdict: 'too_old' });
  }

  /** What was sent on this connection must be here; what the stream has must come soon. */
  pong({ sent = 0, head = 0 }) {
    const { link } = this;
    if (link.mode !== 'extension' || link.phase !== 'active') return;
    if (sent > link.received) return void this.hole(sent);
    const behind = head > link.received;
    const again = behind && link.behindAt === link.received;
    link.behindAt = behind ? link.received : null;
    if (again) this.hole(head);
  }

  event(event) {
    const { mode, phase } = this.link;
    if (mode === 'base' && ['opening', 'asked'].includes(phase)) return this.hold(event);
    // With the extension its place is in the replay that is still to come.
    if (mode !== 'base' && !['replaying', 'active'].includes(phase)) return undefined;
    if (event.sequence === null) return mode === 'base' ? this.enqueue({ event }) : undefined;
    if (this.position === null) {
      this.join({ epoch: null, sequence: event.sequence - 1 });
      this.link.received = event.sequence - 1;
    }
    return this.numbered(event);
  }

  numbered(event) {
    const { sequence } = event;
    if (sequence <= this.link.received) return;
    if (sequence > this.link.received + 1 && !this.hole(sequence - 1)) {
      if (this.link.mode === 'base') this.hold(event);
      return;
    }
    this.link.received = sequence;
    this.enqueueNew(event);
  }

  /** Queues an event unless the application has it, or has had it. */
  enqueueNew(event) {
    const { sequence } = event;
    this.confirm(sequence, event);
    if (sequence <= this.position.sequence) return;
    const handled = this.inFlight?.timeline === this.timeline ? this.inFlight.event : null;
    if (handled?.sequence !== sequence) this.enqueue({ event });
  }

  // ---- base contract: events wait until they can be sorted

  takeHeld() {
    const { held } = this.link;
    Object.assign(this.link, { held: [], heldBytes: 0 });
    return held;
  }

  hold(event) {
    const { link } = this;
    link.held.push(event);
    link.heldBytes += event.text.length + OVERHEAD;
    if (link.held.length < HELD_EVENTS && link.heldBytes < HELD_BYTES) return;
    if (link.phase === 'opening') {
      if (link.reading) this.read(false);
      return;
    }
    const position = this.position?.sequence ?? 0;
    const numbers = link.held.map((it) => it.sequence ?? 0);
    const current_seq = Math.max(position, this.lastOffered?.sequence ?? 0, ...numbers);
    this.releaseHeld({ current_seq, gap_detected: true });
    this.activate();
  }

  /** The replay is over. Returns whether it was complete, or its holes are declared. */
  releaseHeld({ current_seq: end, gap_detected: gap }) {
    const held = this.takeHeld();
    const unnumbered = held.filter((event) => event.sequence === null);
    const bySequence = new Map(held.filter((it) => it.sequence !== null).map((it) => [it.sequence, it]));
    const numbered = [...bySequence.values()].sort((a, b) => a.sequence - b.sequence);
    if (this.position === null) this.join({ epoch: null, sequence: 0 });
    const position = this.position.sequence;
    const restarted = end < Math.max(position, this.lastOffered?.sequence ?? 0);
    const last = Math.max(end, ...numbered.map((it) => it.sequence));
    if (restarted) {
      const sequence = numbered.length > 0 ? numbered[0].sequence - 1 : end;
      this.beginTimeline({ epoch: null, sequence }, 'ahead');
      this.link.received = sequence;
    } else {
      this.link.received = position;
      const hole = unnumbered.length > 0 ? null : this.holeIn(numbered, end, gap);
      if (hole !== null && this.mayAsk(hole)) {
        this.gapAsks.asks += 1;
        this.ask();
        return false;
      }
    }
    let told = restarted;
    if (!restarted && gap && unnumbered.length > 0) {
      told = true;
      this.port.gap('too_old', [], { epoch: null, sequence: end });
    }
    for (const event of unnumbered) this.enqueue({ event });
    const skip = (to) => {
      const lost = { from: this.link.received + 1, to };
      if (to < lost.from) return;
      if (unnumbered.length > 0 || (restarted && to === last)) this.enqueue({ caughtUp: to });
      else {
        told = true;
        this.enqueue({ lost, verdict: 'too_old' });
      }
      this.link.received = to;
    };
    for (const event of numbered) {
      if (event.sequence <= this.link.received) continue;
      skip(event.sequence - 1);
      this.link.received = event.sequence;
      this.enqueueNew(event);
    }
    skip(last);
    if (gap && !told) this.port.gap('too_old', [], { epoch: null, sequence: last });
    return true;
  }

  /** After which number something is missing that the server did not say that it has not got. */
  holeIn(numbered, end, gap) {
    let { received } = this.link;
    const first = received;
    for (const to of [...numbered.map((it) => it.sequence - 1), end]) {
      if (to > received && !(gap && received === first)) return received;
      received = Math.max(received, to + 1);
    }
    return null;
  }

  // ---- the application

  clearQueue() {
    this.queue = [];
    this.queueBytes = 0;
  }

  enqueue(item) {
    this.queue.push(item);
    this.queueBytes += (item.event?.text.length ?? 0) + OVERHEAD;
    const full = this.queue.length >= this.config.queue_events || this.queueBytes >= QUEUE_BYTES;
    if (full && this.link?.reading) this.read(false);
  }

  offerNext() {
    // A handler may store a position of its own, so none is being stored while it runs.
    while (this.queue.length > 0 && !this.inFlight && this.saving === null && !this.unsavedJoin) {
      const { event, lost, verdict, caughtUp, resynced } = this.queue.shift();
      this.queueBytes -= (event?.text.length ?? 0) + OVERHEAD;
      if (event) this.offerFirst(event);
      else if (lost) {
        this.port.gap(verdict, [lost], { ...this.position, sequence: lost.to });
        this.moveTo(lost.to, false);
      } else if (resynced) this.port.resynced(resynced);
      else this.moveTo(caughtUp, false);
    }
    this.readOn();
  }

  offerFirst(event) {
    if (event.key !== null && this.seen.has(event.key)) {
      this.seen.delete(event.key); // it was used just now
      this.seen.add(event.key);
      if (event.sequence !== null) this.moveTo(event.sequence, false);
      return;
    }
    const { sequence } = event;
    const epoch = this.position?.epoch ?? null;
    const retry = new Backoff(RETRY_MS, 0.25, this.random);
    const position = sequence === null ? null : { epoch, sequence };
    this.lastOffered = event;
    this.inFlight = { event, position, timeline: this.timeline, attempt: 0, retry };
    this.offer();
  }

  offer() {
    const { event, position } = this.inFlight;
    this.inFlight.attempt += 1;
    this.inFlight.ticket = this.tickets += 1;
    this.port.offer(this.inFlight.ticket, event, position);
  }

  handled(ok) {
    const { inFlight } = this;
    if (!ok && inFlight.attempt < this.config.offers_max) {
      this.set('offerTimer', inFlight.retry.next());
      return;
    }
    this.inFlight = null;
    const { event, position, timeline } = inFlight;
    if (!ok) this.port.gaveUp(event);
    if (event.key !== null) {
      this.seen.add(event.key);
      if (this.seen.size > SEEN_IDS) this.seen.delete(this.seen.values().next().value);
    }
    if (position && timeline === this.timeline) this.moveTo(position.sequence, ok);
    this.save();
    this.offerNext();
  }

  /** The application is done with everything up to here; `stored` if it has stored that too. */
  moveTo(sequence, stored) {
    if (this.position === null || sequence <= this.position.sequence) return;
    this.position = { ...this.position, sequence };
    this.dirty ||= !stored;
    this.save();
  }

  /** Stores the position: one write at a time, the newest wins. */
  save() {
    if (!this.dirty || this.saving !== null || this.inFlight || this.timers.has('saveTimer')) return;
    this.stores += 1;
    this.saving = { id: this.stores, position: this.position };
    this.dirty = false;
    this.port.store(this.stores, this.position);
  }

  /** This position is stored: a new process goes on from here. */
  kept(position, joined) {
    if (joined) this.port.joined(position);
    this.port.position(position);
  }

  stored(id, ok) {
    if (this.saving?.id !== id) return;
    const { position } = this.saving;
    this.saving = null;
    if (ok) {
      this.kept(position, this.unsavedJoin);
      this.saveRetry.attempts = 0;
      this.unsavedJoin = false;
      this.save();
    } else {
      this.dirty = true;
      this.port.note('the position could not be stored');
      this.set('saveTimer', this.saveRetry.next());
    }
    this.offerNext();
  }
}
