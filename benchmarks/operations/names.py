"""Names that tables, goals and plots look up."""

OURS = "lightsae"
BARE = ("product", "torch")
COPY = ("copy", "torch")
DECODE = "sparse_decode"
RESIDUAL = "sparse_residual"
NESTED = "nested_residual"
RECOMPUTE = "encode+l1_l2_ratio recompute"
STOCK_COMPILED = "product + relu + topk, compiled"
