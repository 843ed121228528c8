"""Checks that a person can trust: what is looked at, when a failure counts, who is told, what is tried.

A run goes one way: `checks` observe, `collect` runs them side by side under time limits, `evaluator` turns
observations into confirmed states, `state` keeps them, `writers` and `notify` tell. Only `evaluator` decides.
"""
