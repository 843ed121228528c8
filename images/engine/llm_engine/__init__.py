"""A llama.cpp server in Python that speaks Ollama's, OpenAI's and Anthropic's HTTP APIs."""

__version__ = "0.1.0"
OLLAMA_VERSION = "0.32.0"  # whose behaviour this engine follows
