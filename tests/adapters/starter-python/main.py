"""Plays the client of `client.py` on standard input and output."""

import json
import sys

from adapter import Adapter
from client import Client


def main():
    # Standard output belongs to the protocol.
    output, sys.stdout = sys.stdout, sys.stderr
    adapter = Adapter(Client, "starter-python")
    for line in sys.stdin:
        request = json.loads(line)
        if request["type"] == "stop":
            break
        output.write(json.dumps(adapter.answer(request)) + "\n")
        output.flush()


main()
