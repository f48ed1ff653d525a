"""The examples of docs/models.md, each loaded and asked, with a small network of its kind in its place."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet, class_table
from mad_backend.core.records import Frame
from mad_backend.models.registry import KINDS, load_model
from mad_backend.settings import ModelSettings, ModelsSettings

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
EXAMPLES = {
    heading: yaml.safe_load(block)
    for heading, block in re.findall(r"^### (.+?)\n.*?```yaml\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
}


def test_every_kind_has_an_example() -> None:
    assert set(EXAMPLES) == {*KINDS, "your own"}


@pytest.mark.parametrize("heading", EXAMPLES)
def test_an_example_loads_and_answers(
    heading: str,
    request: pytest.FixtureRequest,
    three_labels: LabelSet,
    frames: list[Frame],
    tmp_path: Path,
) -> None:
    fixture = "own" if heading == "your own" else heading
    small: ModelSettings = request.getfixturevalue(f"{fixture}_settings")
    ((name, example),) = EXAMPLES[heading].items()
    for key in ("path", "config"):
        if key in example:
            source, place = getattr(small, key), tmp_path / example[key]
            place.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, place)
            example = {**example, key: place}
    if "url" in example:
        example = {**example, "url": small.url}
    model = load_model(name, ModelSettings(**example), three_labels, Grid(64))
    for label_map, frame in zip(model.predict(frames), frames, strict=True):
        assert label_map is not None
        assert label_map.shape == frame.rgb.shape[:2]


def test_the_example_of_a_whole_section_is_valid() -> None:
    block = re.search(r"```yaml\n(models:.*?)```", PAGE, re.DOTALL)
    assert block
    ModelsSettings(**yaml.safe_load(block[1])["models"])


def test_the_example_of_a_mapping_maps_as_it_says(three_labels: LabelSet) -> None:
    block = re.search(r"```yaml\n(classes:.*?)```", PAGE, re.DOTALL)
    assert block
    own = ["tabby", "siamese", "puppy", "sky", "dog", "zebra"]
    table = class_table("m", own, three_labels, yaml.safe_load(block[1])["classes"])
    assert np.asarray(table[: len(own)]).tolist() == [1, 1, 2, 255, 2, 0]
