"""README.md of a repository with an autoencoder: YAML for the Hub's search, then Markdown."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

_TAGS = ["sparse-autoencoder", "interpretability", "lightsae"]
# A backslash before any of these is the character itself; & and ; stay for what html.escape wrote.
_MARKUP = re.compile(r"[\\`*_{}\[\]()#+!|~$^=@]")
# Of an autoencoder that another library has trained.
_ORIGIN = {"format": "imported from", "model": "model", "hook": "hook", "layer": "layer"}
_CODE = """\
```python
from lightsae.sae import SparseAutoencoder

sae = SparseAutoencoder.from_pretrained({arguments})
code = sae.encode(x)  # x: raw activations, [B, {d_in}]; the code has values and indices, [B, k]
{decode}  # [B, {d_out}]
```"""


def model_card(
    repo: str,
    settings: Mapping[str, Any],
    *,
    subfolder: str | None = None,
    license: str | None = None,
    base_model: str | None = None,
    sections: Sequence[str] = (),
) -> str:
    """Text of the card. Values are escaped: whatever they hold stays text.

    Args:
        repo: The repository, OWNER/NAME.
        settings: Those of sae.json.
        subfolder: Folder of the autoencoder in the repository.
        license: The Hub's name of a licence, such as apache-2.0.
        base_model: The repository of the model whose activations these are, OWNER/NAME.
        sections: More of it, Markdown that is already escaped.

    Example:
        >>> settings = {"d_in": 768, "d_sae": 8192, "selection": {"rule": "TopK", "k": 32}}
        >>> print(model_card("me/vit", settings, license="mit")[:39])
        ---
        library_name: lightsae
        license: mit
    """
    matter = {
        "library_name": "lightsae",
        "license": license,
        "base_model": base_model,
        "tags": _TAGS,
    }
    told = {
        key: _one_line(value) if isinstance(value, str) else value
        for key, value in matter.items()
        if value is not None
    }
    title = escaped(repo.rpartition("/")[2] if subfolder is None else subfolder)
    of = "" if base_model is None else f" of activations of {escaped(base_model)}"
    arguments = repr(repo) if subfolder is None else f"{repo!r}, subfolder={subfolder!r}"
    transcodes = settings.get("class") == "Transcoder"
    code = _CODE.format(
        arguments=arguments,
        d_in=int(settings["d_in"]),
        decode=f"{'y' if transcodes else 'x'}_hat = sae.decode(code{', x' if transcodes else ''})",
        d_out=int(settings["d_out" if transcodes else "d_in"]),
    )
    parts = [
        f"---\n{yaml.safe_dump(told, sort_keys=False, width=math.inf)}---",
        f"# {title}",
        f"A {'transcoder' if transcodes else 'sparse autoencoder'}{of}, made with lightsae.",
        table(("", ""), _shape(settings)),
        "## How to load it",
        "    pip install 'lightsae[hub]'",
        code,
        *sections,
    ]
    return "\n\n".join(parts) + "\n"


def escaped(value: object) -> str:
    r"""A value as Markdown that shows it on one line, whatever it holds.

    Example:
        >>> escaped("vit_b <script>|")
        'vit\\_b &lt;script&gt;\\|'
    """
    text = html.escape(_one_line(value), quote=False)
    return _MARKUP.sub(r"\\\g<0>", text).replace("://", ":&#47;&#47;")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; every cell is escaped.

    Example:
        >>> print(table(("figure", "value"), [("R2", 0.9)]))
        | figure | value |
        |---|---|
        | R2 | 0.9 |
    """
    lines = [header, *rows]
    texts = [" | ".join(escaped(cell) for cell in cells) for cells in lines]
    rule = "|---" * len(header) + "|"
    return "\n".join([f"| {texts[0]} |", rule, *(f"| {text} |" for text in texts[1:])])


def _one_line(value: object) -> str:
    return "".join(each for each in " ".join(str(value).split()) if each.isprintable())


def _shape(settings: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Sizes, selection rule, normalisation and where it comes from, as sae.json has them."""
    selection = dict(settings.get("selection") or {})
    rule = selection.pop("rule", "")
    told = ", ".join(f"{name} = {value}" for name, value in selection.items())
    rows: list[tuple[str, object]] = [
        ("d_in", settings["d_in"]),
        *([("d_out", settings["d_out"])] if "d_out" in settings else []),
        ("d_sae", settings["d_sae"]),
        ("selection", f"{rule}: {told}" if told else rule),
        ("normalisation", (settings.get("normalization") or {}).get("kind", "variance")),
        ("dtype", settings.get("dtype", "float32")),
    ]
    origin = settings.get("provenance") or {}
    return rows + [(name, origin[key]) for key, name in _ORIGIN.items() if key in origin]
