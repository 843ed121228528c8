"""Small checks of a host: each gives a severity, the evidence it saw, and one command that mends it."""
