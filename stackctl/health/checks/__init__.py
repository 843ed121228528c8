"""One module per thing that is looked at; each has `checks(scene)`, which lists what applies to this stack.

To add a check: write such a module, name it in `registry.MODULES`. `--list`, `--explain`, the docs page and
every writer follow from the Check it returns.
"""
