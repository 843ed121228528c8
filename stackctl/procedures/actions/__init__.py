"""The actions that steps name, one module per noun; each registers itself with `@action`."""
