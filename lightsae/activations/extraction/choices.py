"""Choices of an extraction by name, apart from what carries them out, which needs torch."""

from typing import Literal

TokenKind = Literal["class", "patch", "pooled", "all"]
Compute = Literal["float32", "bfloat16", "float16"]
