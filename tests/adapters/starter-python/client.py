"""A client of the event-stream protocol, written from docs/spec/events.md: base contract and
extension. It has no sockets, clock, randomness or disk; its port has, and reports back."""

import json
from collections import deque
from datetime import datetime, timedelta, timezone

from frames import Malformed, is_gap, parse

SUBPROTOCOL = "gapless.events.v1"
CONNECT_MS = 10_000
NEGOTIATION_MS = 5_000
OPEN_HANDLERS_MS = 5_000
RESYNC_MS = 15_000
RETRY_MS = (100, 5_000)
SINCE_MARGIN_MS = 30_000
QUEUE_BYTES = 1 << 20
HELD_EVENTS = 8_192
HELD_BYTES = 8 << 20
SEEN_IDS = 2_048
GAP_ASKS_MAX = 3
SLOW_NEGOTIATIONS_MAX = 5
# What anything in memory is counted with, beside its text.
OVERHEAD = 64


class Backoff:
    """Pauses that double up to a bound, with jitter to both sides."""

    def __init__(self, bounds, jitter, random):
        self.least, self.most = bounds
        self.jitter = jitter
        self.random = random
        self.attempts = 0

    def next(self):
        span = min(self.least * 2 ** min(self.attempts, 40), self.most)
        self.attempts += 1
        return max(1, round(span * (1 - self.jitter + 2 * self.jitter * self.random())))


class Link:
    """A connection: dialled, then open."""

    def __init__(self, conn):
        self.conn = conn
        self.is_open = False
        # undecided, base, extension
        self.mode = None
        # The server took the offer of the extension.
        self.taken = False
        self.first = False
        # opening, asked, replaying, active
        self.phase = None
        self.open_ticket = None
        self.handlers_ran = False
        # The highest contiguous number that arrived, finished or not.
        self.received = 0
        # The position's new epoch, once the replay has shown that it has what was offered last.
        self.unconfirmed = None
        self.held = []
        self.held_bytes = 0
        self.reading = True
        # Of what was sent and has not left: whether it is a ping.
        self.unsent = deque()
        self.ping_unwritten = False
        self.pong_owed = False
        # What was received when the last pong showed a head beyond it.
        self.behind_at = None


class Offer:
    """An event at the application's handler."""

    def __init__(self, event, position, timeline, retry):
        self.event = event
        self.position = position
        self.timeline = timeline
        self.retry = retry
        self.attempt = 0
        self.ticket = None


class Client:
    def __init__(self, config, position, random, wall, port):
        # Milliseconds on a clock that never goes back; whoever calls sets it before.
        self.now = 0
        self.config = config
        self.port = port
        self.wall = wall
        self.random = random
        self.timers = {}
        # (epoch, sequence); None if there is none yet.
        self.position = position
        self.offers = config["extension"]
        self.reconnect = Backoff(config["reconnect_ms"], 0.5, random)
        self.save_retry = Backoff(RETRY_MS, 0.25, random)
        self.connections = 0
        self.tickets = 0
        # None while a pause runs.
        self.link = None
        self.slow_negotiations = 0
        # Which run of numbers the position belongs to.
        self.timeline = 0
        self.first_opened_at = None
        self.last_event_at = None
        self.asked_after = 0
        self.asks = 0
        self.queue = deque()
        self.queue_bytes = 0
        self.in_flight = None
        # The newest event of the timeline that was offered, done or not.
        self.last_offered = None
        self.seen = {}
        self.dirty = False
        self.unsaved_join = False
        self.saving = None
        self.stores = 0

    # ---- time

    def deadline(self):
        return min((at for at, _ in self.timers.values()), default=None)

    def timeout(self):
        """Acts on each timer that is due, once."""
        due = [(at, name) for name, (at, _) in self.timers.items() if at <= self.now]
        for at, name in sorted(due, key=lambda timer: timer[0]):
            if name in self.timers and self.timers[name][0] == at:
                _, act = self.timers.pop(name)
                act()

    def set(self, name, delay, act):
        self.timers[name] = (self.now + delay, act)

    def stop(self, *names):
        for name in names:
            self.timers.pop(name, None)

    def set_resync_timer(self):
        self.set("resync", RESYNC_MS, lambda: self.drop(4003, "the resync made no progress"))

    def negotiation_timed_out(self):
        """A server that has spoken the extension before is slow; any other merely echoes offers."""
        had_epoch = self.position is not None and self.position[0] is not None
        if had_epoch and self.slow_negotiations < SLOW_NEGOTIATIONS_MAX:
            self.slow_negotiations += 1
            self.drop(4003, "the server did not begin to speak in time")
            return
        self.link.mode = "base"
        self.ask_when_ready()

    def ping(self):
        self.set("ping", self.config["ping_every_ms"], self.ping)
        if not self.link.ping_unwritten:
            self.link.ping_unwritten = True
            self.expect_written()
            self.send({"type": "ping"})

    # ---- the link

    def start(self):
        if self.position is not None:
            self.kept(self.position, True)
        self.dial()

    def dial(self):
        self.connections += 1
        self.link = Link(self.connections)
        too_late = "the connection did not open in time"
        self.set("connect", CONNECT_MS, lambda: self.drop(1000, too_late))
        self.port.dial(self.link.conn, [SUBPROTOCOL] if self.offers else [])

    def dial_failed(self, conn, problem):
        if self.link is None or self.link.conn != conn or self.link.is_open:
            return
        if problem == "subprotocol" and self.offers:
            self.offers = False
            self.dial()
        else:
            self.lost(f"could not connect: {problem}")

    def opened(self, conn, protocol):
        link = self.link
        if link is None or link.conn != conn or link.is_open:
            self.port.close(conn, 1000, "replaced")
            return
        self.stop("connect")
        link.is_open = True
        link.taken = self.offers and protocol == SUBPROTOCOL
        link.mode = "undecided" if link.taken else "base"
        link.phase = "opening"
        link.first = self.first_opened_at is None
        self.tickets += 1
        link.open_ticket = self.tickets
        if link.taken:
            self.set("negotiation", NEGOTIATION_MS, self.negotiation_timed_out)
        self.set("open_handlers", OPEN_HANDLERS_MS, self.open_handlers_ran)
        self.set("ping", self.config["ping_every_ms"], self.ping)
        self.clear_queue()  # it comes again with the resync
        self.asked_after, self.asks = 0, 0
        if link.first:
            self.first_opened_at = self.wall()
        self.port.opened(link.open_ticket)

    def closed(self, conn):
        if self.link is not None and self.link.conn == conn:
            self.lost("the connection is over")

    def drop(self, code, reason):
        self.port.close(self.link.conn, code, reason)
        self.lost(reason)

    def lost(self, reason):
        self.stop("connect", "negotiation", "open_handlers", "resync")
        self.stop("ping", "unwritten", "pong")
        self.link = None
        pause = self.reconnect.next()
        self.set("reconnect", pause, self.dial)
        self.port.note(f"disconnected: {reason}; again in {pause} ms")

    def send(self, frame):
        self.link.unsent.append(frame["type"] == "ping")
        self.port.send(self.link.conn, json.dumps(frame, separators=(",", ":")))

    def sent(self, conn, count):
        """The oldest frames have left for the network."""
        link = self.link
        if link is None or link.conn != conn:
            return
        left = [link.unsent.popleft() for _ in range(count)]
        if any(left):
            link.ping_unwritten = False
            self.stop("unwritten")
            if not link.pong_owed:  # the oldest ping counts
                link.pong_owed = True
                self.expect_pong()

    def heard(self, conn):
        """Anything that arrives is a sign of life, and progress of a resync."""
        link = self.link
        if link is None or link.conn != conn or not link.is_open:
            return False
        link.pong_owed = False
        self.watch()
        waits = link.phase == "replaying" or (link.phase == "asked" and link.mode == "base")
        if waits and link.reading:
            self.set_resync_timer()
        return True

    def expect_written(self):
        if self.link.reading:
            patience = self.config["ping_every_ms"] + self.config["pong_timeout_ms"]
            why = "the server takes nothing and says nothing"
            self.set("unwritten", patience, lambda: self.drop(4003, why))

    def expect_pong(self):
        if self.link.reading:
            why = "nothing was heard from the server"
            self.set("pong", self.config["pong_timeout_ms"], lambda: self.drop(4003, why))

    def watch(self):
        """The server may be silent anew. Its silence proves nothing while nobody reads."""
        self.stop("unwritten", "pong")
        if self.link.ping_unwritten:
            self.expect_written()
        if self.link.pong_owed:
            self.expect_pong()

    def read(self, on):
        self.link.reading = on
        self.watch()
        if on and self.link.phase in ("asked", "replaying"):
            self.set_resync_timer()
        else:
            self.stop("resync")
        self.port.read(self.link.conn, on)

    def read_on(self):
        """Goes on reading once half of what may wait is worked off."""
        few = len(self.queue) * 2 <= self.config["queue_events"]
        link = self.link
        if few and self.queue_bytes * 2 <= QUEUE_BYTES and link is not None and link.is_open:
            if not link.reading and link.phase != "opening":
                self.read(True)

    # ---- resync

    def done(self, ticket, ok):
        """The application is done with an event or with an open handler, well or badly."""
        if self.in_flight is not None and self.in_flight.ticket == ticket:
            self.handled(ok)
        elif self.link is not None and self.link.open_ticket == ticket:
            self.open_handlers_ran()

    def open_handlers_ran(self):
        self.stop("open_handlers")
        self.link.handlers_ran = True
        self.ask_when_ready()

    def ask_when_ready(self):
        link = self.link
        if link.phase != "opening" or link.mode == "undecided" or not link.handlers_ran:
            return
        live = link.first and self.position is None and not self.config["from_beginning"]
        if link.mode == "base" and live:
            held = self.take_held()
            self.activate()
            for event in held:
                self.event(event)
            self.read_on()
        else:
            self.ask()

    def ask(self):
        link = self.link
        link.phase, link.unconfirmed, link.behind_at = "asked", None, None
        self.take_held()
        self.clear_queue()
        epoch, sequence = self.position or (None, 0)
        resync = {"type": "resync", "last_seen_seq": sequence}
        if link.mode == "base":
            last = self.first_opened_at if self.last_event_at is None else self.last_event_at
            resync["since"] = rfc3339(max(0, last - SINCE_MARGIN_MS))
        elif epoch is not None:
            resync["epoch"] = epoch
        self.set_resync_timer()
        self.send(resync)
        self.read_on()

    def may_ask(self, received):
        if self.asked_after != received:
            self.asked_after, self.asks = received, 0
        return self.asks < GAP_ASKS_MAX

    def hole(self, to):
        """Asks again for what is missing, or declares it lost. Whether it was declared."""
        received = self.link.received
        if self.may_ask(received):
            self.asks += 1
            self.ask()
            return False
        self.enqueue(("lost", (received + 1, to), "unknown"))
        self.link.received = to
        return True

    def activate(self):
        self.stop("resync")
        self.reconnect.attempts = 0
        self.link.phase = "active"

    def join(self, epoch, sequence):
        self.position = (epoch, sequence)
        self.dirty = True
        self.unsaved_join = True
        self.port.note(f"joins at {sequence}")
        self.save()

    def begin_timeline(self, epoch, sequence, verdict, lost=()):
        """From here on the position counts other numbers: what is handled now moves nothing."""
        self.timeline += 1
        self.last_offered = None
        self.position = (epoch, sequence)
        self.dirty = True
        self.port.gap(verdict, lost, self.position)  # first: a crash between tells it again
        self.save()

    def continue_in(self, epoch):
        self.position = (epoch, self.position[1])
        self.dirty = True
        self.save()

    def went_back(self, epoch, sequence):
        self.begin_timeline(epoch, sequence, "ahead")

    def confirm(self, sequence, event):
        """The replay has come to this number: is what was offered under it the same event?"""
        epoch, self.link.unconfirmed = self.link.unconfirmed, None
        if epoch is None:
            return
        offered = self.last_offered
        here = offered is not None and offered.sequence == sequence
        if here and event is not None and offered.text != event.text:
            self.went_back(epoch, sequence - 1)
        else:
            self.continue_in(epoch)

    # ---- frames

    def message(self, conn, text):
        if not self.heard(conn):
            return
        try:
            kind, frame = parse(text)
        except Malformed as problem:
            self.port.note(f"ignores a frame: {problem}")
            return
        if self.link.mode == "undecided" and kind not in ("stream", "pong"):
            self.link.mode = "base"  # the server echoes any offer
            self.stop("negotiation")
            self.ask_when_ready()
        if kind == "event":
            self.last_event_at = self.wall()
            self.event(frame)
        elif kind == "stream":
            self.stream(frame["epoch"], frame["head"])
        elif kind == "resync_begin":
            self.resync_begin(frame)
        elif kind == "resync_ack":
            self.resync_ack(frame)
        elif kind == "gap":
            self.gap(frame["from"], frame["to"])
        else:
            self.pong(frame["sent"], frame["head"])
        self.offer_next()

    def stream(self, epoch, head):
        link = self.link
        if link.mode == "base" and link.taken:
            self.drop(1000, "the server speaks the extension after all")
        elif link.mode == "undecided":
            self.slow_negotiations = 0
            link.mode = "extension"
            self.stop("negotiation")
            if self.position is None:
                self.join(epoch, 0 if self.config["from_beginning"] else head)
            self.ask_when_ready()

    def resync_begin(self, begin):
        link, epoch, start = self.link, begin["epoch"], begin["from"]
        if link.mode != "extension" or link.phase != "asked":
            return
        link.phase = "replaying"
        link.received = start - 1
        self.set_resync_timer()
        if is_gap(begin["verdict"]):
            self.begin_timeline(epoch, start - 1, begin["verdict"], begin["lost"])
        elif self.position[0] != epoch:
            # What was offered after the position is the log's only if the log still has it.
            offered = self.last_offered.sequence if self.last_offered is not None else None
            if (offered or 0) < start:
                self.continue_in(epoch)
            elif begin["to"] < start:
                self.went_back(epoch, start - 1)
            else:
                link.unconfirmed = epoch

    def resync_ack(self, ack):
        link, end = self.link, ack["current_seq"]
        state = (link.mode, link.phase)
        if state == ("extension", "replaying"):
            if end > link.received and not self.hole(end):
                return
            self.confirm(end, None)
        elif state == ("base", "asked"):
            if not self.release_held(end, ack["gap_detected"]):
                return
        elif state != ("base", "active"):
            return
        self.enqueue(("resynced", ack["replayed"], ack["gap_detected"]))
        self.activate()

    def gap(self, start, end):
        link = self.link
        if link.mode != "extension" or link.phase not in ("replaying", "active"):
            return
        if end <= link.received or (start > link.received + 1 and not self.hole(start - 1)):
            return
        lost = (link.received + 1, end)
        link.received = end
        self.confirm(end, None)
        self.enqueue(("lost", lost, "too_old"))

    def pong(self, sent, head):
        """What was sent on this connection must be here; what the stream has must come soon."""
        link = self.link
        if link.mode != "extension" or link.phase != "active":
            return
        if sent > link.received:
            self.hole(sent)
            return
        behind = head > link.received
        again = behind and link.behind_at == link.received
        link.behind_at = link.received if behind else None
        if again:
            self.hole(head)

    def event(self, event):
        mode, phase = self.link.mode, self.link.phase
        if phase not in ("replaying", "active"):
            # With the extension its place is in the replay that is still to come.
            if mode == "base":
                self.hold(event)
        elif event.sequence is not None:
            if self.position is None:
                self.join(None, event.sequence - 1)
                self.link.received = event.sequence - 1
            self.numbered(event)
        elif mode == "base":
            self.enqueue(("event", event))

    def numbered(self, event):
        link, sequence = self.link, event.sequence
        if sequence <= link.received:
            return
        if sequence > link.received + 1 and not self.hole(sequence - 1):
            if link.mode == "base":
                self.hold(event)
            return
        link.received = sequence
        self.enqueue_new(event)

    def enqueue_new(self, event):
        """Queues an event unless the application has it, or has had it."""
        self.confirm(event.sequence, event)
        if event.sequence <= self.position[1]:
            return
        offer = self.in_flight
        handled = offer is not None and offer.timeline == self.timeline
        if not handled or offer.event.sequence != event.sequence:
            self.enqueue(("event", event))

    # ---- base contract: events wait until they can be sorted

    def take_held(self):
        held = self.link.held
        self.link.held, self.link.held_bytes = [], 0
        return held

    def hold(self, event):
        link = self.link
        link.held.append(event)
        link.held_bytes += cost(event)
        if len(link.held) < HELD_EVENTS and link.held_bytes < HELD_BYTES:
            return
        if link.phase == "opening":
            if link.reading:
                self.read(False)
            return
        self.release_held(max([self.reached()] + [it.sequence or 0 for it in link.held]), True)
        self.activate()

    def reached(self):
        """The highest number that the application was given."""
        position = 0 if self.position is None else self.position[1]
        offered = None if self.last_offered is None else self.last_offered.sequence
        return max(position, offered or 0)

    def release_held(self, end, gap):
        """The replay is over. Whether it was complete, or its holes are declared."""
        held = self.take_held()
        unnumbered = [event for event in held if event.sequence is None]
        by_sequence = {event.sequence: event for event in held if event.sequence is not None}
        numbers = sorted(by_sequence)
        if self.position is None:
            self.join(None, 0)
        restarted = end < self.reached()
        last = max([end] + numbers)
        if restarted:
            self.begin_timeline(None, numbers[0] - 1 if numbers else end, "ahead")
        self.link.received = self.position[1]
        if not restarted and not unnumbered:
            hole = self.hole_in(numbers, end, gap)
            if hole is not None and self.may_ask(hole):
                self.asks += 1
                self.ask()
                return False
        told = restarted
        if gap and unnumbered and not restarted:
            told = True
            self.port.gap("too_old", [], (None, end))
        for event in unnumbered:
            self.enqueue(("event", event))
        for sequence in numbers:
            if sequence > self.link.received:
                told |= self.skip(sequence - 1, bool(unnumbered))
                self.link.received = sequence
                self.enqueue_new(by_sequence[sequence])
        told |= self.skip(last, bool(unnumbered) or restarted)
        if gap and not told:
            self.port.gap("too_old", [], (None, last))
        return True

    def skip(self, to, silently):
        """Goes on behind what did not come with its number. Whether the application is told."""
        if to <= self.link.received:
            return False
        lost = (self.link.received + 1, to)
        self.link.received = to
        self.enqueue(("caught_up", to) if silently else ("lost", lost, "too_old"))
        return not silently

    def hole_in(self, numbers, end, gap):
        """After which number something is missing that the server did not say that it lost."""
        first = received = self.link.received
        for to in [sequence - 1 for sequence in numbers] + [end]:
            if to > received and not (gap and received == first):
                return received
            received = max(received, to + 1)
        return None

    # ---- the application

    def clear_queue(self):
        self.queue.clear()
        self.queue_bytes = 0

    def enqueue(self, item):
        self.queue.append(item)
        self.queue_bytes += cost(item[1])
        full = len(self.queue) >= self.config["queue_events"] or self.queue_bytes >= QUEUE_BYTES
        if full and self.link is not None and self.link.reading:
            self.read(False)

    def offer_next(self):
        # A handler may store a position of its own, so none is being stored while it runs.
        while self.queue and not (self.in_flight or self.saving or self.unsaved_join):
            kind, *what = self.queue.popleft()
            self.queue_bytes -= cost(what[0])
            if kind == "event":
                self.offer_first(what[0])
            elif kind == "lost":
                lost, verdict = what
                self.port.gap(verdict, [lost], (self.position[0], lost[1]))
                self.move_to(lost[1], False)
            elif kind == "resynced":
                self.port.resynced(*what)
            else:
                self.move_to(what[0], False)
        self.read_on()

    def offer_first(self, event):
        if event.key is not None and event.key in self.seen:
            self.seen[event.key] = self.seen.pop(event.key)  # it was used just now
            if event.sequence is not None:
                self.move_to(event.sequence, False)
            return
        epoch = None if self.position is None else self.position[0]
        position = None if event.sequence is None else (epoch, event.sequence)
        self.last_offered = event
        retry = Backoff(RETRY_MS, 0.25, self.random)
        self.in_flight = Offer(event, position, self.timeline, retry)
        self.offer()

    def offer(self):
        offer = self.in_flight
        self.tickets += 1
        offer.attempt += 1
        offer.ticket = self.tickets
        self.port.offer(offer.ticket, offer.event, offer.position)

    def handled(self, ok):
        offer = self.in_flight
        if not ok and offer.attempt < self.config["offers_max"]:
            self.set("offer", offer.retry.next(), self.offer)
            return
        self.in_flight = None
        if not ok:
            self.port.gave_up(offer.event)
        if offer.event.key is not None:
            self.seen.pop(offer.event.key, None)
            self.seen[offer.event.key] = True
            if len(self.seen) > SEEN_IDS:
                del self.seen[next(iter(self.seen))]
        if offer.position is not None and offer.timeline == self.timeline:
            self.move_to(offer.position[1], ok)
        self.save()
        self.offer_next()

    def move_to(self, sequence, stored):
        """The application is done up to here; `stored` if it has stored that too."""
        if self.position is None or sequence <= self.position[1]:
            return
        self.position = (self.position[0], sequence)
        self.dirty = self.dirty or not stored
        self.save()

    def save(self):
        """Stores the position: one write at a time, the newest wins."""
        if not self.dirty or self.saving or self.in_flight or "save" in self.timers:
            return
        self.stores += 1
        self.saving = (self.stores, self.position)
        self.dirty = False
        self.port.store(*self.saving)

    def kept(self, position, joined):
        """This position is stored: a new process goes on from here."""
        if joined:
            self.port.joined(position)
        self.port.position(position)

    def stored(self, store, ok):
        if self.saving is None or self.saving[0] != store:
            return
        (_, position), self.saving = self.saving, None
        if ok:
            self.kept(position, self.unsaved_join)
            self.save_retry.attempts = 0
            self.unsaved_join = False
            self.save()
        else:
            self.dirty = True
            self.port.note("the position could not be stored")
            self.set("save", self.save_retry.next(), self.save)
        self.offer_next()


def cost(what):
    text = getattr(what, "text", "")
    return len(text) + OVERHEAD


def rfc3339(wall_ms):
    at = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=wall_ms)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{wall_ms % 1000:03d}Z"
