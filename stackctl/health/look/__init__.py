"""The eyes of the checks: the runtime, the engine's API, the host. They only look, and cheaply."""
