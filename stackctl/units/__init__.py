"""What the host's own scheduler needs: systemd units, or lines for cron."""
