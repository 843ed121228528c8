"""The stack's services as supervised processes of this host, for where there is no Docker."""
