"""`python -m llm_engine.runner FD`: the child process of one loaded model. Started by the server, never
by hand.
"""

from __future__ import annotations

import socket
import sys

from llm_engine.runner.child import serve

if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
