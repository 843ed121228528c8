"""The Docker runtime: every change goes through `docker compose`; the SDK only looks."""
