"""stackctl: runs a private LLM stack on a GPU host."""

__version__ = "0.1.0"
