"""Other hosts, managed from here: the same stackctl, run over there."""
