"""Plays a transcript to the adapter without a simulator: `python3 -m unittest` in this folder."""

import json
import pathlib
import unittest

from adapter import Adapter
from client import Client
from frames import Malformed, parse

TRANSCRIPT = pathlib.Path(__file__).parent.parent / "transcripts" / "starter.jsonl"


def play(make):
    """The first line of the transcript whose effects are others than those that it names."""
    adapter, due = Adapter(make, "test"), None
    for line in TRANSCRIPT.read_text().splitlines():
        request, expected = json.loads(line).values()
        if request.get("until") == "next":
            request["until"] = due
        reply = json.loads(json.dumps(adapter.answer(request)))
        if request["type"] == "hello":
            continue
        effects, due = reply["effects"], reply["next"]
        if len(effects) != len(expected):
            return line
        for effect, fields in zip(effects, expected):
            if any(effect.get(name) != value for name, value in fields.items()):
                return line
    return None


class LosesOne(Client):
    def enqueue_new(self, event):
        if event.sequence != 4:
            super().enqueue_new(event)


class Transcript(unittest.TestCase):
    def test_the_client_does_what_its_transcript_says(self):
        self.assertIsNone(play(Client))

    def test_the_transcript_shows_a_lost_event(self):
        self.assertIn('\\"agent_seq\\":4', play(LosesOne))


class Frames(unittest.TestCase):
    def test_a_sequence_may_be_written_as_a_fraction_that_is_whole(self):
        self.assertEqual(parse('{"type":"note","agent_seq":4.0}')[1].sequence, 4)

    def test_a_frame_that_is_not_well_formed_is_malformed(self):
        for text in ["{", "[]", '{"type":"note","agent_seq":-7}', '{"type":"error"}', '{"a":NaN}']:
            with self.assertRaises(Malformed, msg=text):
                parse(text)


if __name__ == "__main__":
    unittest.main()
