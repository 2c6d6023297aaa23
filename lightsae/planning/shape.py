"""What a run trains, as far as its memory, its time and its traffic depend on it."""

from typing import Any, NamedTuple

from lightsae.errors import LightsaeError

FORMATS = {"float32": 4, "bfloat16": 2, "float16": 2}
STATES = ("float32", "bfloat16", "int8")
_PRODUCTS = {
    "32-true": "float32", "32": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16",
}  # fmt: skip
_ADAM = ("SAEAdam", "Adam", "AdamW")
_FUSED = {"OffSupportL1": "off_support_l1", "L1L2Ratio": "l1_l2_ratio"}


class Shape(NamedTuple):
    """The sizes of a run.

    Attributes:
        d_in: Width of the activations.
        d_sae: Size of the dictionary.
        k: Latents per row.
        batch: Rows of a batch of one rank.
        accumulate: Batches of an optimizer step.
        product: Dtype of the products: float32, bfloat16 or float16. Parameters are float32.
        optimizer: SAEAdam, Adam or AdamW.
        state_dtype: Of the moments: float32, bfloat16 or int8.
        regularizer: none, off_support_l1, l1_l2_ratio, or dense for any other of activations.
        k_aux: Dead latents that AuxK uses per row; 0 without AuxK.
        dead_share: Share of the latents taken as dead, of which AuxK's cost depends; assumed.
        buffer_rows: Rows held in memory to shuffle among.
        stored_rows: Rows of the shards; 0 where they are not known.
        row_bytes: Bytes of a stored row.
    """

    d_in: int
    d_sae: int
    k: int
    batch: int
    accumulate: int = 1
    product: str = "float32"
    optimizer: str = "SAEAdam"
    state_dtype: str = "float32"
    regularizer: str = "none"
    k_aux: int = 0
    dead_share: float = 0.0
    buffer_rows: int = 131_072
    stored_rows: int = 0
    row_bytes: int = 0

    @property
    def itemsize(self) -> int:
        """Bytes of an element of a product."""
        return FORMATS[self.product]

    @property
    def mixed(self) -> bool:
        """Whether products are narrower than parameters."""
        return self.itemsize < 4

    def checked(self) -> "Shape":
        """Itself, or one line about a size that cannot be.

        Raises:
            LightsaeError: Naming it.

        Example:
            >>> Shape(d_in=4, d_sae=8, k=9, batch=2).checked()
            Traceback (most recent call last):
            ...
            lightsae.errors.LightsaeError: k = 9 is larger than d_sae = 8
        """
        for name in ("d_in", "d_sae", "k", "batch", "accumulate", "buffer_rows"):
            if getattr(self, name) < 1:
                raise LightsaeError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.k > self.d_sae:
            raise LightsaeError(f"k = {self.k} is larger than d_sae = {self.d_sae}")
        if not 0 <= self.dead_share <= 1:
            raise LightsaeError(f"dead_share is {self.dead_share}, expected 0 to 1")
        known = {"product": tuple(FORMATS), "state_dtype": STATES, "optimizer": _ADAM,
                 "regularizer": ("none", *_FUSED.values(), "dense")}  # fmt: skip
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise LightsaeError(
                    f"{name} is {getattr(self, name)!r}, expected one of {', '.join(values)}"
                )
        return self


def shape_of(
    settings: dict[str, Any], d_in: int, *, stored_rows: int = 0, row_bytes: int = 0,
    dead_share: float = 0.05,
) -> Shape:  # fmt: skip
    """The shape of a run of `lightsae fit`.

    Args:
        settings: All its settings, defaults included, as config.yaml of a run folder has them.
        d_in: Width of the activations.
        stored_rows: Rows of the shards; 0 where they are not known.
        row_bytes: Bytes of a stored row; 0 takes those of float16.
        dead_share: Latents taken as dead where there is an AuxK.

    Raises:
        LightsaeError: If the settings are of no `SAEModule`, or of what is not planned: a
            transcoder, another optimizer than Adam, another precision than 32-true, bf16-mixed and
            16-mixed.

    Example:
        >>> model = {"class_path": "SAEModule", "init_args": {"d_sae": 64}}
        >>> shape_of({"model": model, "data": {"init_args": {"batch_size": 32}}}, 8).k
        32
    """
    model, data = (settings.get(name) or {} for name in ("model", "data"))
    if _name(model) != "SAEModule":
        raise LightsaeError(f"model is {_name(model) or 'missing'}, expected SAEModule")
    given, trainer = model.get("init_args") or {}, settings.get("trainer") or {}
    if given.get("transcoder"):
        raise LightsaeError("model.transcoder: plans are of autoencoders, not of transcoders")
    aux, loaded = given.get("aux_k"), data.get("init_args") or {}
    optimizer = given.get("optimizer") or {"class_path": "SAEAdam"}
    return Shape(
        d_in=d_in,
        d_sae=given["d_sae"],
        k=((given.get("selection") or {}).get("init_args") or {}).get("k", 32),
        batch=loaded.get("batch_size", 4096),
        accumulate=trainer.get("accumulate_grad_batches") or 1,
        product=_product(trainer.get("precision")),
        optimizer=_optimizer(_name(optimizer)),
        state_dtype=(optimizer.get("init_args") or {}).get("state_dtype", "float32"),
        regularizer=_regularizer(given.get("regularizer")),
        k_aux=0 if aux is None else aux.get("k_aux", 256),
        dead_share=0.0 if aux is None else dead_share,
        buffer_rows=loaded.get("buffer_rows", 131_072),
        stored_rows=stored_rows,
        row_bytes=row_bytes or 2 * d_in,
    ).checked()


def _name(component: dict[str, Any] | None) -> str:
    return str((component or {}).get("class_path", "")).rpartition(".")[2]


def _product(precision: Any) -> str:
    text = "32-true" if precision is None else str(precision)
    if text not in _PRODUCTS:
        raise LightsaeError(
            f"trainer.precision is {text!r}, expected 32-true, bf16-mixed or 16-mixed"
        )
    return _PRODUCTS[text]


def _optimizer(name: str) -> str:
    if name not in _ADAM:
        raise LightsaeError(f"model.optimizer is {name}, expected one of {', '.join(_ADAM)}")
    return name


def _regularizer(component: dict[str, Any] | None) -> str:
    name = _name(component)
    if not name or name == "MonosemanticityLoss":
        return "none"
    return _FUSED.get(name, "dense")
