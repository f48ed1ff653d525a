"""One contract for every kind of model."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mad_backend.core.grid import Grid
from mad_backend.core.labels import VOID, LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.base import SegmentationModel
from mad_backend.models.registry import KINDS, load_model, stored_key
from mad_backend.settings import ModelSettings

GRID = Grid(64)
ALL = (*sorted(KINDS), "own")
"""Every kind of the table, and one of somebody's own (`module:Class`)."""
OF_FILES = tuple(kind for kind in ALL if kind != "label_studio")
IN_ONE_FILE = ("mmseg", "onnx", "smp", "tflite", "torchscript", "torchvision")
OF_ANY_INPUT_SIZE = ("hf", "mmseg", "onnx", "smp", "torchscript", "torchvision")


def changed(settings: ModelSettings, **values: object) -> ModelSettings:
    return settings.model_copy(update=values)


def settings_of(request: pytest.FixtureRequest) -> ModelSettings:
    found: ModelSettings = request.getfixturevalue(f"{request.param}_settings")
    return found


@pytest.fixture(scope="module", params=ALL)
def of_kind(request: pytest.FixtureRequest) -> ModelSettings:
    return settings_of(request)


@pytest.fixture
def of_named_kind(request: pytest.FixtureRequest) -> ModelSettings:
    """Of the kind that a test names."""
    return settings_of(request)


@pytest.fixture(scope="module")
def loaded(of_kind: ModelSettings, three_labels: LabelSet) -> Iterator[SegmentationModel]:
    model = load_model("g", of_kind, three_labels, GRID)
    yield model
    model.close()


class TestEveryKind:
    def test_one_uint8_map_per_frame_of_its_own_shape_with_known_ids(
        self, loaded: SegmentationModel, frames: list[Frame]
    ) -> None:
        maps = loaded.predict(frames)
        assert len(maps) == len(frames)
        for label_map, frame in zip(maps, frames, strict=True):
            assert label_map is not None
            assert (label_map.shape, label_map.dtype) == (frame.rgb.shape[:2], np.uint8)
            assert set(np.unique(label_map)) <= loaded.class_ids | {VOID}
        assert len(np.unique(np.concatenate([m.ravel() for m in maps if m is not None]))) > 1

    def test_the_batch_does_not_matter_and_neither_does_repeating(
        self, loaded: SegmentationModel, frames: list[Frame]
    ) -> None:
        together = loaded.predict(frames)
        alone = [loaded.predict([frame])[0] for frame in frames]
        again = loaded.predict(frames)
        for one, two, three in zip(together, alone, again, strict=True):
            assert one is not None
            assert two is not None
            assert (one == two).mean() > 0.999  # a batch may sum in another order and tip a tie
            assert np.array_equal(one, three)

    def test_no_frames_give_no_maps(self, loaded: SegmentationModel) -> None:
        assert loaded.predict([]) == []

    def test_the_key_is_known_without_loading_and_tells_not_where_the_model_runs(
        self, loaded: SegmentationModel, of_kind: ModelSettings, three_labels: LabelSet
    ) -> None:
        assert loaded.key.startswith("g-")
        assert stored_key("g", of_kind, three_labels, GRID) == loaded.key
        elsewhere = changed(of_kind, batch_size=1, device="cuda:1")
        assert stored_key("g", elsewhere, three_labels, GRID) == loaded.key

    def test_the_key_changes_with_mapping_label_set_and_grid(
        self, loaded: SegmentationModel, of_kind: ModelSettings, three_labels: LabelSet
    ) -> None:
        mapped = changed(of_kind, classes={**of_kind.classes, "cat": "dog"})
        other = LabelSet(
            "other", (*three_labels.classes[:2], three_labels.classes[2].__class__("cow", (0, 0, 0)))
        )
        keys = {
            loaded.key,
            stored_key("g", mapped, three_labels, GRID),
            stored_key("g", of_kind, other, GRID),
            stored_key("g", of_kind, three_labels, Grid(32)),
        }
        assert len(keys) == 4

    def test_classes_are_merged_and_what_is_not_named_goes_where_the_rest_goes(
        self, loaded: SegmentationModel, of_kind: ModelSettings, three_labels: LabelSet, frames: list[Frame]
    ) -> None:
        """Classes 1 and 2 under strange names: one goes to cat, the other with the rest."""
        own = ("background", "puma", "lynx")
        plain = loaded.predict(frames)
        for rest, meant in (("cat", 1), ("dog", 2), ("ignore", VOID)):
            settings = changed(of_kind, own_classes=own, classes={"puma": "cat", "*": rest})
            model = load_model("g", settings, three_labels, GRID)
            table = np.array([0, 1, meant], np.uint8)
            if of_kind.kind != "label_studio":  # its regions come under the names that it knows itself
                for one, two in zip(plain, model.predict(frames), strict=True):
                    assert one is not None
                    assert two is not None
                    assert (table[one] == two).mean() > 0.999
            model.close()

    def test_a_class_that_nothing_maps_is_named(self, of_kind: ModelSettings, three_labels: LabelSet) -> None:
        own = of_kind.own_classes or three_labels.names
        wrong = changed(of_kind, own_classes=("zebra", *own[1:]))
        with pytest.raises(ModelError, match=r"\['zebra'\] are not in label set"):
            load_model("g", wrong, three_labels, GRID)


class TestEveryKindOfFiles:
    @pytest.fixture(params=OF_FILES)
    def of_files(self, request: pytest.FixtureRequest) -> ModelSettings:
        return settings_of(request)

    def test_the_key_changes_with_the_files(
        self, of_files: ModelSettings, three_labels: LabelSet, tmp_path: Path
    ) -> None:
        path = of_files.required_path
        moved = tmp_path / path.name
        if path.is_dir():
            shutil.copytree(path, moved)
            shaping = [p for p in moved.rglob("*") if p.is_file() and p.name != "generation_config.json"]
        else:
            shaping = [Path(shutil.copy2(path, moved))]
        copied = changed(of_files, path=moved)
        seen = {stored_key("g", copied, three_labels, GRID)}
        assert seen == {stored_key("g", of_files, three_labels, GRID)}
        for file in shaping:
            file.write_bytes(file.read_bytes() + b"\0")
            seen.add(stored_key("g", copied, three_labels, GRID))
        assert len(seen) == 1 + len(shaping)

    def test_a_missing_file_is_named(
        self, of_files: ModelSettings, three_labels: LabelSet, tmp_path: Path
    ) -> None:
        gone = changed(of_files, path=tmp_path / "gone")
        with pytest.raises(ModelError, match=r'model "g": there is no .*gone'):
            load_model("g", gone, three_labels, GRID)


@pytest.mark.parametrize("of_named_kind", IN_ONE_FILE, indirect=True)
def test_a_file_of_something_else_is_named(
    of_named_kind: ModelSettings, three_labels: LabelSet, tmp_path: Path
) -> None:
    wrong = tmp_path / of_named_kind.required_path.name
    wrong.write_bytes(b"something else " * 100)
    with pytest.raises(ModelError, match=f'model "g": .*{wrong.name}'):
        load_model("g", changed(of_named_kind, path=wrong), three_labels, GRID)


@pytest.mark.parametrize("fit", ["pad", "keep", "stretch"])
@pytest.mark.parametrize("of_named_kind", OF_ANY_INPUT_SIZE, indirect=True)
def test_frames_larger_than_the_models_input_get_maps_of_their_own_size(
    of_named_kind: ModelSettings, three_labels: LabelSet, frames: list[Frame], fit: str
) -> None:
    small = changed(of_named_kind, input_size=(32, 48), fit=fit)
    maps = load_model("g", small, three_labels, GRID).predict(frames)
    assert [m.shape for m in maps if m is not None] == [f.rgb.shape[:2] for f in frames]
    assert stored_key("g", small, three_labels, GRID) != stored_key("g", of_named_kind, three_labels, GRID)


@pytest.mark.parametrize("of_named_kind", sorted(KINDS), indirect=True)
def test_a_setting_that_a_kind_does_not_use_is_refused(
    of_named_kind: ModelSettings, three_labels: LabelSet
) -> None:
    key = "url" if of_named_kind.kind == "smp" else "encoder"
    with pytest.raises(ModelError, match=f'model "g": {key} has no meaning for kind "{of_named_kind.kind}"'):
        load_model("g", changed(of_named_kind, **{key: "any"}), three_labels, GRID)
