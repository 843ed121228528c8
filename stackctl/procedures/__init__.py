"""Executable runbooks: a Markdown page that a person reads and `stackctl run` carries out, step by step.

`document` reads a page, `registry` knows the actions that a step may name, `engine` runs check -> run ->
verify and walks undo backwards on failure, `journal` remembers every transition so that a run survives a
crash.
"""
