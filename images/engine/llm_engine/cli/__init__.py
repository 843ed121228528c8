"""The `llm-engine` program: click glue only; the work is done by the rooms below and by the server."""
