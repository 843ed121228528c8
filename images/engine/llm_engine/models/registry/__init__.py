"""Models over the network: Ollama's registry, Hugging Face, and any registry that speaks the Docker
protocol."""
