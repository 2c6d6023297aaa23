"""The configuration that SAEBench reads of an autoencoder."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class BenchmarkConfig:
    """Attributes that SAEBench 0.6 reads, and that SAELens' store of activations reads for it.

    SAEBench adds `metadata` to it, with some of them once more.

    Attributes:
        model_name: The model whose activations these are.
        d_in: Width of the inputs.
        d_sae: Size of the dictionary.
        hook_layer: Number of the layer.
        hook_name: Where in it activations are taken.
        architecture: The selection rule.
        dtype: Of the parameters, such as float32.
        device: Of the parameters.
        apply_b_dec_to_input: Whether b_dec is subtracted from inputs.
        activation_fn_str: The selection rule once more.
        activation_fn_kwargs: Its arguments.
        normalize_activations: What the suite should do to inputs beforehand: nothing.
        context_size: Tokens of a text; None is the suite's own.
        hook_head_index: Of a single attention head.
        prepend_bos: Whether texts begin with a token for that.
        finetuning_scaling_factor: Whether there is one.
        model_from_pretrained_kwargs: Arguments with which the model is loaded.
        dataset_path: Of the texts it was trained on, or empty.
        dataset_trust_remote_code: Whether their loading script may run.
        seqpos_slice: Which tokens of a text it was trained on.
        training_tokens: Rows it was trained on; negative where that is not known.
        sae_lens_training_version: None, as it is none of SAELens.
        neuronpedia_id: Of its dashboard there, or None.

    Example:
        >>> BenchmarkConfig("gpt2", 4, 16, 3, "blocks.3.hook_resid_post").to_dict()["d_sae"]
        16
    """

    model_name: str
    d_in: int
    d_sae: int
    hook_layer: int
    hook_name: str
    architecture: str = ""
    dtype: str = ""
    device: str = ""
    apply_b_dec_to_input: bool = True
    activation_fn_str: str = ""
    activation_fn_kwargs: dict[str, Any] = field(default_factory=dict)
    normalize_activations: str = "none"
    context_size: int | None = None
    hook_head_index: int | None = None
    prepend_bos: bool = True
    finetuning_scaling_factor: bool = False
    model_from_pretrained_kwargs: dict[str, Any] = field(default_factory=dict)
    dataset_path: str = ""
    dataset_trust_remote_code: bool = False
    seqpos_slice: tuple[int | None, ...] = (None,)
    training_tokens: int = -1
    sae_lens_training_version: str | None = None
    neuronpedia_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain values, for the suite's file of results."""
        return asdict(self)
