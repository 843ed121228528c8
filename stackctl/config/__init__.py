"""stack.yaml: read, validated and frozen."""

import os

# pydantic looks through every installed distribution for plug-ins; none may have a say in this.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from stackctl.config.loader import Loaded, load, load_with_origins
from stackctl.config.stack import StackConfig

__all__ = ["Loaded", "StackConfig", "load", "load_with_origins"]
