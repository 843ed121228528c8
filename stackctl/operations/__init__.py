"""Use-cases: what the commands do, in terms of config, render and runtime. No click, no printing to
stdout."""
