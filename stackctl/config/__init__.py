"""stack.yaml: read, validated and frozen."""
