"""Without a GPU the Triton kernels are interpreted; triton reads that when it is imported."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
