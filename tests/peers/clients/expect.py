"""What every client must see; each script asserts it in its client's own words.

`URL` is the engine's address."""

import json
import sys
import time
import urllib.request

URL = sys.argv[1]
SENTENCE = "The quick brown fox jumps over the lazy dog."
AFTER_TOOL = "It is sunny in Paris today."
ARGUMENTS = {"city": "Paris", "days": 3}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
FUNCTION = {"name": "get_weather", "description": "The weather of a city.", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": FUNCTION}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "enum": ["Ada"]}, "age": {"type": "integer", "enum": [36]}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def wait_until_idle(client_side):
    """A cancelled stream must leave nothing running in the engine."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{URL}/api/status") as answer:
            running = json.load(answer)["requests"]
        if not any(entry["model"] == "endless:latest" for entry in running):
            return
        time.sleep(0.02)
    raise AssertionError(f"{client_side}: the cancelled stream still runs")
