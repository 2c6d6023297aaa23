"""What can be measured: the environment, the adapter beside this file and its options."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Implementation:
    """One row of the table.

    Attributes:
        adapter: Module beside this file with `build(sizes, sample, **options)`.
        package: Distribution whose version is recorded.
        environment: Folder that setup.py makes for it; empty for the caller's own environment.
        dtype: Of the products; parameters are float32 everywhere.
        options: Passed on to `build`.
        inputs: Dtype of the batches.
    """

    adapter: str
    package: str
    environment: str = ""
    dtype: str = "float32"
    options: dict[str, str | bool] = field(default_factory=dict)
    inputs: str = "float32"


OURS = "lightsae"
BASELINE = "sparsify"
PRODUCT = "bare product"
DENSE = "torch dense compiled"
STAND_IN = "torch sparse (stand-in for sparsify)"

_PEERS = {
    "sparsify": Implementation("peer_sparsify", "eai-sparsify", "sparsify"),
    "sae_lens": Implementation("peer_sae_lens", "sae-lens", "sae_lens"),
    "sae_lens coo": Implementation(
        "peer_sae_lens", "sae-lens", "sae_lens", options={"sparse": True}
    ),
    "dictionary_learning": Implementation(
        "peer_dictionary_learning", "dictionary-learning", "dictionary_learning"
    ),
    "overcomplete": Implementation("peer_overcomplete", "overcomplete", "overcomplete"),
}

# Other rules and losses, ours and theirs.
_RULES = {
    "sae_lens batchtopk": Implementation(
        "peer_sae_lens", "sae-lens", "sae_lens", options={"rule": "batchtopk"}
    ),
    "sae_lens matryoshka": Implementation(
        "peer_sae_lens", "sae-lens", "sae_lens", options={"rule": "matryoshka"}
    ),
    "dictionary_learning batchtopk": Implementation(
        "peer_dictionary_learning", "dictionary-learning", "dictionary_learning",
        options={"rule": "batchtopk"},
    ),
    "dictionary_learning matryoshka": Implementation(
        "peer_dictionary_learning", "dictionary-learning", "dictionary_learning",
        options={"rule": "matryoshka"},
    ),
}  # fmt: skip
_OWN_RULES = {
    "lightsae batchtopk": Implementation("own", "lightsae", options={"rule": "BatchTopK"}),
    "lightsae jumprelu": Implementation("own", "lightsae", options={"rule": "JumpReLU"}),
    "lightsae groupmax": Implementation("own", "lightsae", options={"rule": "GroupMax"}),
    "lightsae matryoshka": Implementation("own", "lightsae", options={"prefixes": True}),
    "lightsae matryoshka batchtopk": Implementation(
        "own", "lightsae", options={"rule": "BatchTopK", "prefixes": True}
    ),
}

_ON_CPU = {
    "lightsae": Implementation("own", "lightsae"),
    "lightsae reg1": Implementation("own", "lightsae", options={"regularizer": "OffSupportL1"}),
    "lightsae reg2": Implementation("own", "lightsae", options={"regularizer": "L1L2Ratio"}),
    "lightsae bf16": Implementation("own", "lightsae", dtype="bfloat16", options={"bf16": True}),
    "lightsae one pass": Implementation("own", "lightsae", options={"one_pass": True}),
    "torch dense": Implementation("stock_torch", "torch", options={"sparse": False}),
    "torch sparse": Implementation("stock_torch", "torch", options={"sparse": True}),
}


def _own(**options: str | bool) -> Implementation:
    return Implementation(
        "own", "lightsae", dtype="bfloat16", options={"bf16": True, "checked": True, **options}
    )


def _stock(**options: bool) -> Implementation:
    return Implementation(
        "stock_torch", "torch", dtype="bfloat16", options={"bf16": True, **options}
    )


# What the goals need comes first: time may not be enough for all.
_ON_CUDA = {
    PRODUCT: Implementation("bare_product", "torch", dtype="bfloat16", inputs="bfloat16"),
    OURS: _own(one_pass=True),
    "lightsae reg1": _own(one_pass=True, regularizer="OffSupportL1"),
    "lightsae reg2": _own(one_pass=True, regularizer="L1L2Ratio"),
    "lightsae graph": _own(one_pass=True, graph=True),
    DENSE: _stock(sparse=False, compiled=True),
    STAND_IN: _stock(sparse=True),
    "lightsae definition compiled": _own(defined="compiled"),
    "lightsae definition": _own(defined="eager"),
    "lightsae torch adam": _own(),
}

IMPLEMENTATIONS = {"cpu": _ON_CPU | _PEERS | _OWN_RULES | _RULES, "cuda": _ON_CUDA | _PEERS}
