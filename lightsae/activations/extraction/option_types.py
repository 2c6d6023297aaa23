"""`Literal` types of the options of an extraction, importable without torch."""

from typing import Literal

TokenKind = Literal["class", "patch", "pooled", "all"]
Compute = Literal["float32", "bfloat16", "float16"]
