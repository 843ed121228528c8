"""The only rooms that start, stop and look at services: one interface, Docker and local processes behind
it."""
