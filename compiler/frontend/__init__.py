"""ONNX to `Graph`: read the file safely, bind dimensions, make each node of our ops, fold what is known."""

from .load import load

__all__ = ["load"]
