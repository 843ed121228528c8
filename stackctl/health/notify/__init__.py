"""Carries confirmed changes to people: what (`message`), when (`dispatch`), how (one module per channel)."""
