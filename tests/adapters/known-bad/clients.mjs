// Clients with one defect each. A suite that passes one of them checks nothing.
import { Client } from '../starter-js/client.mjs';

/** Passes over one event, as if the application had taken it. */
class LosesOne extends Client {
  fresh = 0;

  enqueueNew(event) {
    this.fresh += 1;
    if (this.fresh !== 3) super.enqueueNew(event);
  }
}

/** Moves and stores its cursor before the application is done with the event. */
class AcksEarly extends Client {
  offer() {
    const { position, attempt } = this.inFlight;
    if (position && attempt === 0) {
      this.position = position;
      this.stores += 1;
      this.port.store(this.stores, position);
    }
    super.offer();
  }
}

/** Gives up when its connection is lost. */
class NeverReconnects extends Client {
  lost(reason) {
    super.lost(reason);
    this.stop('reconnectTimer');
  }
}

/** Takes a number that it has seen for an event that it has seen, whatever the epoch. */
class DedupesBySeq extends Client {
  numbers = new Set();

  enqueueNew(event) {
    if (this.numbers.has(event.sequence)) this.confirm(event.sequence, event);
    else super.enqueueNew(event);
  }

  handled(ok) {
    this.numbers.add(this.inFlight.event.sequence);
    super.handled(ok);
  }
}

/** Asks from the last number that it saw instead of the highest contiguous one. */
class CursorJumps extends Client {
  last = 0;

  event(event) {
    this.last = event.sequence ?? this.last;
    super.event(event);
  }

  ask() {
    if (this.last > this.position?.sequence) this.position = { ...this.position, sequence: this.last };
    super.ask();
  }
}

/** Does not tell the application what is lost. */
class HidesGaps extends Client {
  constructor(parts) {
    super({ ...parts, port: { ...parts.port, gap: () => {} } });
  }
}

/** Offers an event again that the application has taken. */
class OffersTwice extends Client {
  handled(ok) {
    const { event } = this.inFlight;
    super.handled(ok);
    if (ok && event.sequence === 3) this.port.offer(0, event, null);
  }
}

/** Throws what nobody catches. */
class Panics extends Client {
  numbered(event) {
    if (event.sequence === 5) throw new Error('the fifth event is one too many');
    super.numbered(event);
  }
}

/** Draws its pauses from the machine's randomness. */
class Nondeterministic extends Client {
  constructor(parts) {
    super({ ...parts, random: Math.random });
  }
}

export const clients = {
  'acks-early': AcksEarly,
  'cursor-jumps': CursorJumps,
  'dedupes-by-seq': DedupesBySeq,
  'hides-gaps': HidesGaps,
  'loses-one': LosesOne,
  'never-reconnects': NeverReconnects,
  nondeterministic: Nondeterministic,
  'offers-twice': OffersTwice,
  panics: Panics,
};
