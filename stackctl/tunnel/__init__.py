"""SSH tunnels that stay up: forwards, the connection that carries them, and the process that keeps both."""
