"""Answers like an engine, on the standard library alone; MODE makes it misbehave. Runs inside a test
image."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODE = os.environ.get("MODE", "")


class Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, document: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if MODE == "sick":
            self.answer({"error": "sick"}, 500)
        elif self.path == "/api/version":
            self.answer({"version": "0.13.5"})
        else:
            self.answer({"models": []})

    do_POST = do_GET


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print(f"stand-in engine, mode {MODE or 'well'}", flush=True)
    if MODE == "crash":
        print("boom: tensor blk.0 is missing", flush=True)
        sys.exit(3)
    if MODE.startswith("crash-after-"):
        threading.Timer(float(MODE.removeprefix("crash-after-")), lambda: os._exit(9)).start()
    eaten = os.path.exists("/models/eaten")
    if MODE == "eat" or (MODE == "eat-once" and not eaten):
        open("/models/eaten", "w").close()
        threading.Thread(target=eat, daemon=True).start()
    ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "11434"))), Handler).serve_forever()


def eat() -> None:
    held = []
    while True:
        held.append(bytearray(os.urandom(1 << 20)) * 16)
        time.sleep(0.01)


main()
