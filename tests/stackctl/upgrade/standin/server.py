"""A stand-in for the engine and the web UI whose behaviour is chosen when its image is built.

MODE: good · never-healthy · crash-later · nonsense · slow · migrate · migrate-and-die · crash-at-once ·
one-key · once · gpu · gpu-gone
Its own words and speed are fixed, so that a gate that judges them is judged itself.
"""

import hashlib
import json
import os
import pathlib
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODE = os.environ["STANDIN_MODE"]
CRASH_AFTER = float(os.environ.get("STANDIN_CRASH_AFTER", "20"))
WORDS = ["One", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
GOOD, WORSE, BETTER = "0" * 64, "1" * 64, "2" * 64
# name -> digest; a pull brings other weights, worse or as good
MODELS = {"standin:latest": GOOD, "improving:latest": GOOD}
PULLED = {"standin:latest": WORSE, "improving:latest": BETTER}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        pass

    def answer(self, body, status=200):
        raw = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self):
        if MODE == "never-healthy":
            return self.answer({"error": "not yet"}, 503)
        routes = {
            "/api/version": {"version": "0.0.1"},
            "/api/tags": {"models": [{"name": n, "size": 1000, "digest": d} for n, d in MODELS.items()]},
            "/api/ps": {"models": []},
            "/health": {"status": True},
        }
        found = routes.get(self.path)
        return self.answer(found or {"error": "not found"}, 200 if found else 404)

    def do_DELETE(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        found = MODELS.pop(body["model"], None)
        self.answer({}, 200 if found else 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.path == "/api/show":
            return self.answer({"capabilities": ["completion"]})
        if self.path == "/api/copy":
            MODELS[body["destination"]] = MODELS[body["source"]]
            return self.answer(None)
        if self.path == "/api/pull":
            MODELS[body["model"]] = PULLED[body["model"]]
            return self.answer({"status": "success"})
        bad = MODE == "nonsense" or MODELS.get(body.get("model")) == WORSE
        words = ["\ufffd\ufffd", "\x01\x02"] * 5 if bad else WORDS
        words = words[: int(body.get("options", {}).get("num_predict", 99))]
        pause = 0.3 if MODE == "slow" else 0.02
        if not body.get("stream", True):
            return self.answer({"response": " ".join(words), "done": True, "eval_count": len(words)})
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for word in words:
            time.sleep(pause)
            self.wfile.write(json.dumps({"response": word + " ", "done": False}).encode() + b"\n")
            self.wfile.flush()
        self.wfile.write(
            json.dumps({"done": True, "response": "", "eval_count": len(words)}).encode() + b"\n"
        )
        self.close_connection = True


def open_data():
    """What a web UI does at its start: make its database, or migrate it one way."""
    if not os.path.isdir("/data"):
        return
    database = sqlite3.connect("/data/webui.db")
    database.execute("CREATE TABLE IF NOT EXISTS chat (id INTEGER PRIMARY KEY, said TEXT)")
    database.commit()
    columns = [row[1] for row in database.execute("PRAGMA table_info(chat)")]
    if MODE == "migrate" and len(columns) == 2:
        database.execute("ALTER TABLE chat ADD COLUMN new_in_this_version TEXT")
        database.commit()
    if MODE == "migrate-and-die":
        database.execute("ALTER TABLE chat ADD COLUMN new_in_this_version TEXT")
        database.execute("DELETE FROM chat")
        database.commit()
        sys.exit(3)


def refuse_another(mark, name):
    """A web UI that does not start when its data was made with another `mark` than the one of now."""
    now, place = hashlib.sha256(mark).hexdigest(), pathlib.Path("/data", name)
    if not place.exists():
        place.write_text(now)
    if place.read_text() != now:
        sys.exit(f"this {name} is not the one that the data was made with")


open_data()
if MODE == "one-key":
    refuse_another(pathlib.Path("/run/secrets/webui_secret_key").read_bytes(), "key")
if MODE == "once":
    refuse_another(os.environ["HOSTNAME"].encode(), "container")
if MODE == "crash-at-once":
    sys.exit(3)
if MODE == "crash-later":
    threading.Timer(CRASH_AFTER, lambda: os._exit(7)).start()
port = int(os.environ.get("STANDIN_PORT", "11434" if not os.path.isdir("/data") else "8080"))
ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()
