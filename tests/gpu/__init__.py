"""Checks for a machine with an NVIDIA card; `tests/gpu/run` builds what they need and runs them."""
