"""The engine against `llama-server`, built from the same llama.cpp source. `make bench` runs it."""
