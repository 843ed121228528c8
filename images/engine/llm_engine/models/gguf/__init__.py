"""Reading the head of a GGUF file: what a model is, without loading it."""

from llm_engine.models.gguf.file import GGUFFile, TensorInfo
from llm_engine.models.gguf.values import Array, Value

__all__ = ["Array", "GGUFFile", "TensorInfo", "Value"]
