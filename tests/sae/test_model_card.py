"""The card of a repository is YAML and Markdown that no name can break."""

import html
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from lightsae.sae.model_card import escaped, model_card, table

SETTINGS = {
    "d_in": 768, "d_sae": 8192, "dtype": "float32", "selection": {"rule": "TopK", "k": 32},
    "normalization": {"kind": "layer_norm"},
}  # fmt: skip
HOSTILE = [
    "a\n---\n# mine", "x: [y", "'\"", "- !!python/object:os.system", "<script>alert(1)</script>",
    "[here](javascript:alert(1))", "![x](http://evil/pixel.png)", "a | b | c", "`code`",
    "&lt;b&gt;", "{{ 7 * 7 }}", "http://evil", "\x1b[31m\u202ered", "*b* _i_ ~s~ $x$ #h",
]  # fmt: skip


def front_matter(card: str) -> Any:
    """What the Hub reads: from the first line to the next line of three dashes."""
    lines = card.splitlines()
    assert lines[0] == "---"
    return yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))


def body(card: str) -> str:
    return card.partition("\n---\n")[2]


def test_the_hub_finds_library_tags_licence_and_base_model() -> None:
    card = model_card("me/vit", SETTINGS, license="mit", base_model="timm/vit_small")
    assert front_matter(card) == {
        "library_name": "lightsae",
        "license": "mit",
        "base_model": "timm/vit_small",
        "tags": ["sparse-autoencoder", "interpretability", "lightsae"],
    }


def test_what_is_not_given_is_left_out() -> None:
    assert front_matter(model_card("me/vit", SETTINGS)).keys() == {"library_name", "tags"}


def test_it_tells_sizes_rule_and_how_to_load() -> None:
    card = model_card("me/vit", SETTINGS, subfolder="layer_3")
    assert "| d\\_sae | 8192 |\n| selection | TopK: k \\= 32 |" in card
    assert "| normalisation | layer\\_norm |" in card
    assert "from_pretrained('me/vit', subfolder='layer_3')" in card


def test_it_tells_where_an_imported_one_comes_from() -> None:
    origin = {"format": "saelens", "hook": "blocks.8.hook_resid_pre", "config": {"d_in": 768}}
    card = model_card("me/gpt2", {**SETTINGS, "provenance": origin})
    assert "| imported from | saelens |\n| hook | blocks.8.hook\\_resid\\_pre |" in card
    assert "config" not in card


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_stays_a_value_of_the_yaml(text: str) -> None:
    card = model_card("me/vit", SETTINGS, license=text, base_model=text)
    found = front_matter(card)
    shown = "".join(each for each in text.replace("\n", " ") if each.isprintable())
    assert (found["license"], found["base_model"]) == (shown, shown)
    assert card.splitlines()[8] == "---"
    assert found.keys() == {"library_name", "license", "base_model", "tags"}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_stays_text_of_the_page(text: str) -> None:
    settings = {**SETTINGS, "selection": {"rule": text, text: text}}
    lines = body(model_card("me/vit", settings, base_model=text)).splitlines()
    plain = body(model_card("me/vit", SETTINGS, base_model="plain")).splitlines()
    assert len(lines) == len(plain)
    for line in lines[:9]:
        bare = line.replace("\\|", "").strip("| ")
        assert "<" not in line and "](" not in line and "://" not in line
        assert bare.count("|") <= 1
        assert line.isprintable()


def test_a_subfolder_cannot_leave_the_block_of_code() -> None:
    card = model_card("me/vit", SETTINGS, subfolder="a```\nb")
    assert card.splitlines().count("```") == 1
    assert repr("a```\nb") in card


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_is_rendered_as_it_is(text: str) -> None:
    page = (
        MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(f"a {escaped(text)} b")
    )
    shown = "".join(each for each in text.replace("\n", " ") if each.isprintable())
    assert html.unescape(page.strip()) == f"<p>a {shown} b</p>"
    assert page.count("<") == 2


def test_a_table_has_a_cell_for_each_value() -> None:
    assert table(("a", "b"), [("x|y", 1.5)]) == "| a | b |\n|---|---|\n| x\\|y | 1.5 |"


def test_of_a_transcoder_it_says_what_is_decoded_from_what() -> None:
    card = model_card("me/mlp", {**SETTINGS, "class": "Transcoder", "d_out": 96, "skip": True})
    assert "A transcoder, made with lightsae." in card
    assert "y_hat = sae.decode(code, x)  # [B, 96]" in card
    assert "| d\\_out | 96 |" in card
