"""Copies of what cannot be made again: data, configuration, secrets. Models are listed, not copied.

`sources` says what is authoritative, `snapshot` copies it beside the original for an upgrade, `archive`
writes it into one file that restores onto an empty host.
"""
