"""Fixtures that every room may use."""

import signal
import threading

from hypothesis import settings

# How long one example takes is the machine's affair: a busy one must not fail a test.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# A shell starts what runs in its background with Ctrl-C ignored, and every program would inherit that: those
# that tests interrupt would never notice.
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.support.models",
    "tests.support.engine",
    "tests.support.gates",
    "tests.support.images",
    "tests.support.stacks",
]
