"""`lightsae push`: a run's autoencoder and a card with its settings and numbers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from lightsae.activations import Manifest, ShardWriter
from lightsae.cli import main
from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.report.model_card import hub_name, run_card
from lightsae.sae import SparseAutoencoder, TopK

from ..cli.helpers import files
from ..sae.hub_server import OLD_UPLOAD, Hub, local_hub
from ..training.helpers import D_IN, D_SAE, K, write_config

pytestmark = pytest.mark.filterwarnings(OLD_UPLOAD)
MODEL = "vit_small_patch14_dinov2.lvd142m"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with local_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run folder has after `lightsae fit` and `lightsae test`."""
    folder, shards = tmp_path / "secret place" / "run", tmp_path / "secret place" / "shards"
    manifest = Manifest(d_in=D_IN, dtype="float32", model=MODEL, layer="blocks.9", tokens="class")
    with ShardWriter(shards, manifest) as writer:
        writer.write(torch.randn(8, D_IN), range(8))
    SparseAutoencoder(D_IN, D_SAE, TopK(K)).save(folder / "sae")
    write_config(folder / "config.yaml", shards)
    result(folder, str(shards)).save(folder)
    return folder


def result(folder: Path, shards: str, *, d_sae: int = D_SAE, name: str = "cnn") -> EvaluationResult:
    return EvaluationResult(
        about={
            "run_dir": str(folder), "split": "test", "rows": 400, "images": 100, "d_in": D_IN,
            "d_sae": d_sae, "k": K, "step": 20, "shards": {"path": shards, "digest": "0"},
            "embeddings": [
                {"name": name, "d_e": 4, "source": f"{shards}: resnet50.a1_in1k fc"},
                {"name": "own_input", "d_e": D_IN, "source": "the autoencoder's own input"},
            ],
        },
        scalars={
            "r2": 0.91234567, "l0": 3.0, "dead": 2, "nmse": None, f"ms_mean/{name}": 0.625,
            f"ms_scored/{name}": 21, "ms_mean/own_input": 0.75,
        },
    )  # fmt: skip


def card_of(folder: Path, **options: str) -> str:
    return run_card(folder, folder / "sae", "me/vit", **options)


def test_it_tells_what_the_run_was_trained_on_and_how(run: Path) -> None:
    card = card_of(run, license="mit")
    matter = yaml.safe_load(card.split("---\n")[1])
    assert matter["base_model"] == f"timm/{MODEL}"
    assert matter["license"] == "mit"
    for row in (
        "| layer | blocks.9 |", "| tokens | class |", "| batch size | 16 |", "| epochs | 2 |",
        "| regularizer | L1L2Ratio: weight \\= 0.05 |", "| optimizer | SGD: lr \\= 0.05 |",
        "| seed | 3 |",
    ):  # fmt: skip
        assert row in card


def test_numbers_stand_under_the_embeddings_that_they_were_measured_in(run: Path) -> None:
    card = card_of(run)
    whole, cnn, own = card.partition("## Evaluation")[2].split("Monosemanticity in")
    assert "On the split test: 400 rows of 100 images, step 20." in whole
    assert "| R², explained variance | 0.91235 |" in whole
    assert "NMSE" not in whole
    assert cnn.startswith(" the embeddings of cnn \\(resnet50.a1\\_in1k fc\\):")
    assert "| mean | 0.625 |\n| latents scored | 21 |" in cnn
    assert own.startswith(" the embeddings of own\\_input \\(the autoencoder's own input\\):")
    assert "| mean | 0.75 |" in own


def test_places_of_this_machine_are_not_told(run: Path) -> None:
    assert "secret" not in card_of(run)


def test_a_hostile_name_stays_text(run: Path) -> None:
    result(run, "x", name="<img src=x>|`").save(run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["seed_everything"] = "1 |\n\n# <b>mine</b>"
    config["model"]["init_args"]["regularizer"]["class_path"] = "a.<i>b"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    card = card_of(run, base_model="x\n---\n<script>")
    _, matter, text = card.split("---\n", 2)
    assert "<" not in text
    assert yaml.safe_load(matter)["base_model"] == "x --- <script>"


def test_an_online_run_names_its_model_itself(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    model = {"name": "facebook/dinov2-small", "library": "transformers"}
    config["data"]["init_args"] = {"model": model, "layer": 9, "tokens": "patch"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    card = card_of(run)
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "facebook/dinov2-small"
    assert "| layer | 9 |" in card


@pytest.mark.parametrize(
    ("title", "name"),
    [
        (MODEL, f"timm/{MODEL}"),
        ("transformers:facebook/dinov2-small", "facebook/dinov2-small"),
        ("transformers:/home/me/model", None),
        ("open_clip:ViT-B-32", None),
        ("lightsae.activations.sources.digits.DigitsViT", None),
        ("mine.make_model", None),
        ("", None),
    ],
)
def test_a_base_model_is_named_only_where_its_repository_is_sure(
    title: str, name: str | None
) -> None:
    assert hub_name(title) == name


def test_a_run_is_pushed_with_its_card_and_comes_back(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["push", str(run), "me/vit", "--subfolder", "blocks.9", "--license", "mit"]
    assert main(words) == 0
    commit, found = hub.repos["me/vit"].commits[-1]
    assert capsys.readouterr().out == f"{hub.address}/me/vit/commit/{commit}\n"
    card = run_card(run, run / "sae", "me/vit", subfolder="blocks.9", license="mit")
    assert found["blocks.9/README.md"].decode() == card
    for name, content in files(run / "sae").items():
        assert found[f"blocks.9/{name}"] == content
    back = SparseAutoencoder.from_pretrained("me/vit", "blocks.9")
    assert torch.equal(back.W_dec, SparseAutoencoder.load(run / "sae").W_dec)


def test_the_folder_of_an_autoencoder_is_pushed_too(run: Path, hub: Hub) -> None:
    assert main(["push", str(run / "sae"), "me/vit", "--private", "true"]) == 0
    assert hub.repos["me/vit"].private
    card = hub.repos["me/vit"].commits[-1][1]["README.md"].decode()
    assert "## How to load it" in card
    assert "## Training" not in card


def test_what_is_wrong_is_one_line_before_anything_is_asked(
    run: Path, hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def line(*words: object) -> str:
        assert main(["push", *map(str, words)]) == 1
        (text,) = capfd.readouterr().err.splitlines()
        return text

    assert "has no autoencoder, expected sae.json or a run's sae/sae.json" in line(
        tmp_path, "me/vit"
    )
    assert "'vit' is no repository of the Hub" in line(run, "vit")
    assert "subfolder '../x' is not a folder" in line(run, "me/vit", "--subfolder", "../x")
    result(run, "x", d_sae=D_SAE + 1).save(run)
    assert "is of an autoencoder with d_sae = 25, not 24: run `lightsae test` again" in line(
        run, "me/vit"
    )
    (run / "evaluation.json").write_text("{}")
    assert "is not an evaluation of format 1" in line(run, "me/vit")
    (run / "sae" / "sae.safetensors").write_bytes(b"altered")
    assert "hash differs" in line(run / "sae", "me/vit")
    assert hub.asked == []


def test_a_configuration_that_is_none_is_refused(run: Path) -> None:
    for content in ("- a list", "{", "!!python/object:os.system {}"):
        (run / "config.yaml").write_text(content)
        with pytest.raises(LightsaeError, match=r"config\.yaml"):
            card_of(run)
