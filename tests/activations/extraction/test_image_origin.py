"""What a manifest remembers of the images it was made of, and what of that is believed."""

import pytest

from lightsae.activations.extraction.image_origin import images_from, origin_settings
from lightsae.activations.extraction.images.preparation import DataOptions
from lightsae.activations.shards.manifest import Manifest
from lightsae.activations.sources.digits import Digits
from lightsae.errors import LightsaeError


def made_of(**options: object) -> Manifest:
    return Manifest(4, "float16", settings=origin_settings(DataOptions(**options)))  # type: ignore[arg-type]


def test_options_come_back() -> None:
    found = images_from(made_of(folder="/photos", size=32), "--images")
    assert found == DataOptions(folder="/photos", size=32)


def test_a_folder_is_remembered_from_the_root() -> None:
    found = images_from(made_of(folder="photos"), "--images")
    assert found is not None and found.folder is not None and found.folder.startswith("/")


def test_older_manifests_say_nothing() -> None:
    assert images_from(Manifest(4, "float16"), "--images") is None


@pytest.mark.parametrize("dataset", ["my.Photos", "lightsae.cli.main"])
def test_code_that_is_no_known_dataset_is_not_imported(dataset: str) -> None:
    with pytest.raises(LightsaeError, match=rf"not imported because .*: --images {dataset} does"):
        images_from(made_of(dataset=dataset), "--images")


def test_the_digits_are_known() -> None:
    ours = f"{Digits.__module__}.{Digits.__name__}"
    found = images_from(made_of(dataset=ours, arguments={"copies": 2}), "--images")
    assert found == DataOptions(dataset=ours, arguments={"copies": 2})


def test_options_that_there_are_not_are_named() -> None:
    manifest = Manifest(4, "float16", settings={"images_from": {"fodler": "photos"}})
    with pytest.raises(LightsaeError, match="fodler"):
        images_from(manifest, "--images")
