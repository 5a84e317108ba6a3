"""The frames of the event-stream protocol, sections 3 and 6: what comes out is well formed."""

import json
import re

SEQUENCE_MAX = 2**53 - 1
GAPLESS = ("up_to_date", "replay")
VERDICTS = GAPLESS + ("too_old", "ahead", "other_epoch", "unknown")
# Types that only a client sends, or nobody.
FOREIGN = ("error", "ping", "resync", "subscribe", "unsubscribe")
EPOCH = re.compile(r"[\x21-\x7e]{1,128}")


class Malformed(Exception):
    """A frame that is to be ignored."""


class Event:
    """An event as it travels: its text, and what the protocol needs to know of it."""

    def __init__(self, sequence, key, text):
        self.sequence = sequence
        self.key = key
        self.text = text


def check(holds, problem):
    if not holds:
        raise Malformed(problem)


def reject(name):
    raise ValueError(f"`{name}` is no JSON")


def number(value, least):
    """A whole number in range, also when it is written as `4.0`; else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if value != value or not least <= value <= SEQUENCE_MAX or value != int(value):
        return None
    return int(value)


def epoch(value):
    return isinstance(value, str) and EPOCH.fullmatch(value) is not None


def is_gap(verdict):
    """Whether something after the cursor could not be supplied."""
    return verdict not in GAPLESS


def ranges(frame):
    lost = frame.get("lost", [])
    check(isinstance(lost, list), "bad `lost`")
    return [bounds(it) for it in lost]


def bounds(value):
    check(isinstance(value, dict), "bad range")
    start = number(value.get("from"), 1)
    check(start is not None, "bad `from`")
    end = number(value.get("to"), start)
    check(end is not None, "bad `to`")
    return (start, end)


def parse(text):
    """Reads a text frame of a server: its type, and its fields or its event."""
    try:
        frame = json.loads(text, parse_constant=reject)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no JSON: {error}") from error
    check(isinstance(frame, dict), "no JSON object")
    kind = frame.get("type")
    check(isinstance(kind, str) and kind != "", "no `type`")
    check(kind not in FOREIGN, f"the type `{kind}` is not a server's")
    if kind == "pong":
        for name in ("sent", "head"):
            frame[name] = number(frame.get(name, 0), 0)
            check(frame[name] is not None, f"bad `{name}`")
    elif kind == "stream":
        check(epoch(frame.get("epoch")), "bad `epoch`")
        frame["head"] = number(frame.get("head"), 0)
        check(frame["head"] is not None, "bad `head`")
        check(number(frame.get("oldest"), 0) is not None, "bad `oldest`")
    elif kind == "resync_begin":
        check(epoch(frame.get("epoch")), "bad `epoch`")
        check(frame.get("verdict") in VERDICTS, "bad `verdict`")
        frame["from"] = number(frame.get("from"), 1)
        check(frame["from"] is not None, "bad `from`")
        frame["to"] = number(frame.get("to"), frame["from"] - 1)
        check(frame["to"] is not None, "bad `to`")
        frame["lost"] = ranges(frame)
    elif kind == "resync_ack":
        for name in ("last_seen_seq", "current_seq", "replayed"):
            frame[name] = number(frame.get(name), 0)
            check(frame[name] is not None, f"bad `{name}`")
        check(isinstance(frame.get("gap_detected"), bool), "bad `gap_detected`")
    elif kind == "gap":
        check(epoch(frame.get("epoch")), "bad `epoch`")
        frame["from"], frame["to"] = bounds(frame)
    else:
        sequence = None
        if frame.get("agent_seq") is not None:
            sequence = number(frame["agent_seq"], 1)
            check(sequence is not None, "`agent_seq` is out of range or no number")
        name = frame.get("id")
        key = (kind, name) if isinstance(name, str) else None
        return "event", Event(sequence, key, text)
    return kind, frame
