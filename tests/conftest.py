"""Fixtures that every room may use."""

pytest_plugins = [
    "tests.support.models",
    "tests.support.engine",
    "tests.support.gates",
    "tests.support.images",
    "tests.support.stacks",
]
