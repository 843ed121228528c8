"""stack.yaml: read, validated and frozen."""

from stackctl.config.loader import Loaded, load, load_with_origins
from stackctl.config.stack import StackConfig

__all__ = ["Loaded", "StackConfig", "load", "load_with_origins"]
