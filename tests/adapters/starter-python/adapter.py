"""Between a client of events and a simulator: a reply to each request. To attach a client of your
own, copy this and `main.py`, and replace what is called on `client` and what it calls on its port."""

import base64
import json
import random
import traceback

# The features of this client: see docs/conformance.md.
FEATURES = [
    "extension", "from_beginning", "handler.async", "handler.fail", "open_handler.fail", "ping.configured", "suspend",
    "sock.alive", "sock.sent",
]


def cursor(position):
    return {"cursor": base64.b64encode(json.dumps(position).encode()).decode()}


class Port:
    """What the client has instead of sockets, a disk and an application."""

    def __init__(self, config, effects):
        url = config["base_url"].replace("http", "ws", 1) + "/v1/ws"
        headers = [("authorization", f"Bearer {config['token']}")]
        self.server, self.effects = {"url": url, "headers": headers}, effects

    def effect(self, kind, **fields):
        self.effects.append({"type": kind, **fields})

    def dial(self, conn, protocols):
        self.effect("sock.connect", conn=conn, protocols=protocols, **self.server)

    def send(self, conn, text):
        self.effect("sock.send", conn=conn, text=text)

    def close(self, conn, code, reason):
        self.effect("sock.close", conn=conn, code=code, reason=reason)

    def read(self, conn, on):
        self.effect("sock.read", conn=conn, on=on)

    def store(self, store, position):
        self.effect("store.commit", id=store, writes=cursor(position))

    def offer(self, ticket, event, position):
        epoch, commits = (position[0], cursor(position)) if position else (None, {})
        self.effect("app.event", ticket=ticket, event=event.text, epoch=epoch, commits=commits)

    def opened(self, ticket):
        self.effect("app.open", ticket=ticket)

    def joined(self, position):
        self.effect("app.joined", epoch=position[0], sequence=position[1])

    def position(self, position):
        self.effect("app.position", epoch=position[0], sequence=position[1])

    def gap(self, verdict, lost, position):
        epoch, sequence = position
        self.effect("app.gap", verdict=verdict, lost=lost, epoch=epoch, sequence=sequence)

    def resynced(self, replayed, gap_detected):
        self.effect("app.resynced", replayed=replayed, gap_detected=gap_detected)

    def gave_up(self, event):
        self.effect("app.gave_up", event=event.text)

    def note(self, text):
        self.effect("app.state", text=text)


class Adapter:
    """Answers the requests of a simulator with what a client does."""

    def __init__(self, make, name):
        self.make, self.name = make, name
        self.client, self.effects, self.epoch_ms, self.skew_ms = None, [], 0, 0

    def answer(self, request):
        kind = request["type"]
        self.skew_ms = request.get("skew_ms", 0)
        if kind == "hello":
            return self.hello(request)
        if kind == "reset":
            self.reset(request)
        elif kind == "deliver":
            self.client.now = request["at"]
            self.call(self.told(request["event"]))
        elif kind == "advance":
            self.call(lambda: self.advance(request["until"]))
        elif kind != "settle":
            raise ValueError(f"the request `{kind}` is not known")
        now, due, effects = self.client.now, self.client.deadline(), self.effects[:]
        self.effects.clear()
        return {"type": "done", "n": request["n"], "now": now, "effects": effects, "next": due}

    def hello(self, request):
        if 1 not in request["protocol"]:
            raise ValueError("only version 1 is spoken here")
        return {
            "type": "hello", "protocol": 1, "nonce": request["nonce"], "name": self.name,
            "version": "1.0.0", "language": "Python", "roles": ["events.client"],
            "features": FEATURES, "clock": "virtual", "entropy": "seeded", "storage": "virtual",
        }

    def reset(self, request):
        config = request["config"]["events_client"]
        stored = request.get("storage", {}).get("cursor")
        position = tuple(json.loads(base64.b64decode(stored))) if stored else None
        self.epoch_ms, self.effects = request["epoch_ms"], []
        draw = random.Random("{seed}/{host}/{life}".format(**request)).random
        wall = lambda: self.epoch_ms + self.client.now + self.skew_ms
        self.client = self.make(config, position, draw, wall, Port(config, self.effects))
        self.client.now = request["now"]

    def told(self, event):
        """The function of the client that is told of an event."""
        client, conn = self.client, event.get("conn")
        return {
            "app.connect": client.start,
            "app.done": lambda: client.done(event["ticket"], event["ok"]),
            "sock.open": lambda: client.opened(conn, event.get("protocol")),
            "sock.message": lambda: client.message(conn, event.get("text", "")),
            "sock.sent": lambda: client.sent(conn, event["count"]),
            "sock.alive": lambda: client.heard(conn),
            "sock.close": lambda: client.closed(conn),
            "sock.error": lambda: client.dial_failed(conn, event["problem"]),
            "store.done": lambda: client.stored(event["id"], event.get("error") is None),
            "os.suspend": client.timeout,
        }[event["type"]]

    def advance(self, until):
        """Fires timers up to the first instant that has an effect."""
        client = self.client
        while (due := client.deadline()) is not None and due <= until:
            client.now = max(client.now, due)
            client.timeout()
            if self.effects:
                return
        client.now = until

    def call(self, body):
        """Calls the client; what it raises ends its process."""
        try:
            body()
        except Exception as error:
            traceback.print_exc()
            self.effects.append({"type": "panic", "message": repr(error)})
