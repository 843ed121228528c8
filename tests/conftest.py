"""Fixtures that every room may use."""

from hypothesis import settings

# How long one example takes is the machine's affair: a busy one must not fail a test.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

pytest_plugins = [
    "tests.support.models",
    "tests.support.engine",
    "tests.support.gates",
    "tests.support.images",
    "tests.support.stacks",
]
