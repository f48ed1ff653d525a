"""One contract for every kind of model, and what each refuses."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from mad_backend.core.grid import Grid
from mad_backend.core.labels import VOID, LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import MissingRuntimeError, ModelError, UnknownKindError
from mad_backend.models.base import SegmentationModel, TorchModel
from mad_backend.models.registry import KINDS, TRAINABLE, load_model, stored_key
from mad_backend.settings import ModelSettings

GRID = Grid(64)


def changed(settings: ModelSettings, **values: object) -> ModelSettings:
    return settings.model_copy(update=values)


@pytest.fixture(scope="module", params=sorted(KINDS))
def of_kind(request: pytest.FixtureRequest) -> ModelSettings:
    found: ModelSettings = request.getfixturevalue(f"{request.param}_settings")
    return found


@pytest.fixture(scope="module", params=sorted(TRAINABLE))
def trainable(request: pytest.FixtureRequest) -> ModelSettings:
    found: ModelSettings = request.getfixturevalue(f"{request.param}_settings")
    return found


@pytest.fixture(scope="module")
def loaded(of_kind: ModelSettings, three_labels: LabelSet) -> SegmentationModel:
    return load_model("g", of_kind, three_labels, GRID)


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

    def test_the_key_is_the_same_for_the_same_files_and_known_without_loading(
        self, loaded: SegmentationModel, of_kind: ModelSettings, three_labels: LabelSet
    ) -> None:
        assert loaded.key.startswith("g-")
        assert stored_key("g", of_kind, three_labels, GRID) == loaded.key
        assert stored_key("g", changed(of_kind, batch_size=1), three_labels, GRID) == loaded.key

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

    def test_the_key_changes_with_the_files(
        self, loaded: SegmentationModel, of_kind: ModelSettings, three_labels: LabelSet, tmp_path: Path
    ) -> None:
        moved = tmp_path / of_kind.path.name
        if of_kind.path.is_dir():
            shutil.copytree(of_kind.path, moved)
            first = min(moved.rglob("*.safetensors" if of_kind.kind == "hf" else "*.png"))
        else:
            first = Path(shutil.copy2(of_kind.path, moved))
        copied = changed(of_kind, path=moved)
        assert stored_key("g", copied, three_labels, GRID) == loaded.key
        first.write_bytes(first.read_bytes() + b"\0")
        assert stored_key("g", copied, three_labels, GRID) != loaded.key

    def test_a_missing_file_is_named(
        self, of_kind: ModelSettings, three_labels: LabelSet, tmp_path: Path
    ) -> None:
        gone = changed(of_kind, path=tmp_path / "gone")
        with pytest.raises(ModelError, match=r'model "g": there is no .*gone'):
            load_model("g", gone, three_labels, GRID)

    def test_a_class_that_nothing_maps_is_named(self, of_kind: ModelSettings, three_labels: LabelSet) -> None:
        own = of_kind.own_classes or three_labels.names
        wrong = changed(of_kind, own_classes=("zebra", *own[1:]), classes=_without(of_kind.classes, own[0]))
        with pytest.raises(ModelError, match=r"\['zebra'\] are not in label set"):
            load_model("g", wrong, three_labels, GRID)


def _without(classes: dict[str, str], name: str) -> dict[str, str]:
    return {k: v for k, v in classes.items() if k != name}


class TestTrainableKinds:
    def test_a_wrong_number_of_class_names_is_refused(
        self, trainable: ModelSettings, three_labels: LabelSet
    ) -> None:
        with pytest.raises(ModelError, match="has 3 output classes, but 2 class names are known"):
            load_model("g", changed(trainable, own_classes=("cat", "dog")), three_labels, GRID)

    def test_damaged_weights_are_refused_by_name(
        self, trainable: ModelSettings, three_labels: LabelSet, tmp_path: Path
    ) -> None:
        copied = tmp_path / trainable.path.name
        if trainable.path.is_dir():
            shutil.copytree(trainable.path, copied)
            weights = copied / "model.safetensors"
        else:
            weights = copied
        weights.write_bytes(b"not a safetensors file")
        with pytest.raises(ModelError, match=f'model "g": .*{copied.name}'):
            load_model("g", changed(trainable, path=copied), three_labels, GRID)

    def test_what_is_saved_answers_as_what_was_loaded(
        self, trainable: ModelSettings, three_labels: LabelSet, frames: list[Frame], tmp_path: Path
    ) -> None:
        model = load_model("g", trainable, three_labels, GRID)
        assert isinstance(model, TorchModel)
        again = load_model("g", changed(trainable, path=model.save(tmp_path / "new")), three_labels, GRID)
        for one, two in zip(model.predict(frames), again.predict(frames), strict=True):
            assert one is not None
            assert two is not None
            assert (one == two).mean() > 0.999

    @pytest.mark.parametrize("pad", ["square", "none"])
    def test_frames_larger_than_the_models_input_get_maps_of_their_own_size(
        self, trainable: ModelSettings, three_labels: LabelSet, frames: list[Frame], pad: str
    ) -> None:
        small = changed(trainable, input_size=32, pad=pad)
        maps = load_model("g", small, three_labels, GRID).predict(frames)
        assert [m.shape for m in maps if m is not None] == [f.rgb.shape[:2] for f in frames]


def test_the_hf_key_changes_with_the_mean_colour(
    hf_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(hf_settings.path, tmp_path / "m"))
    before = stored_key("g", changed(hf_settings, path=path), three_labels, GRID)
    (path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}')
    assert stored_key("g", changed(hf_settings, path=path), three_labels, GRID) != before


def test_a_network_that_wants_bgr_gets_it_normalised_in_that_order(
    mmseg_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame], tmp_path: Path
) -> None:
    """Against mmsegmentation's own preprocessor."""
    import torch

    assert mmseg_settings.config
    config = tmp_path / "bgr.py"
    text = mmseg_settings.config.read_text()
    config.write_text(text.replace("bgr_to_rgb=True", "bgr_to_rgb=False"))
    tensors = []
    for path in (mmseg_settings.config, config):
        model = load_model("g", changed(mmseg_settings, config=path, pad="none"), three_labels, GRID)
        assert isinstance(model, TorchModel)
        rgb = frames[0].rgb
        as_opencv_reads = torch.from_numpy(np.ascontiguousarray(rgb[:, :, ::-1])).permute(2, 0, 1)
        data = {"inputs": [as_opencv_reads]}
        preprocessor = model.module.data_preprocessor
        preprocessor.size = None
        preprocessor.test_cfg = None
        expected = preprocessor(data, training=False)["inputs"][0]
        tensors.append(model._tensor(rgb))
        assert torch.allclose(tensors[-1], expected, atol=1e-5)
    assert not torch.allclose(*tensors)


EVIL = "import pathlib; pathlib.Path({!r}).touch()"


class _Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (EVIL.format(str(self.target)),)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickled_object_in_a_pth_is_refused_and_not_executed(
    mmseg_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path, *, legacy: bool
) -> None:
    import torch

    path, trace = tmp_path / "evil.pth", tmp_path / "executed"
    checkpoint = {"state_dict": {}, "meta": _Evil(trace)}
    if legacy:
        path.write_bytes(pickle.dumps(checkpoint, protocol=2))
    else:
        torch.save(checkpoint, path)
    with pytest.raises(ModelError, match=r'model "g": .*evil\.pth holds more than tensors'):
        load_model("g", changed(mmseg_settings, path=path), three_labels, GRID)
    assert not trace.exists()


def test_a_pth_of_tensors_is_read(
    mmseg_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame], tmp_path: Path
) -> None:
    import torch

    model = load_model("g", mmseg_settings, three_labels, GRID)
    assert isinstance(model, TorchModel)
    torch.save({"state_dict": model.module.state_dict()}, tmp_path / "m.pth")
    again = load_model("g", changed(mmseg_settings, path=tmp_path / "m.pth"), three_labels, GRID)
    assert np.array_equal(model.predict(frames[:1])[0], again.predict(frames[:1])[0])


def test_a_missing_mmseg_configuration_is_named(
    mmseg_settings: ModelSettings, three_labels: LabelSet
) -> None:
    with pytest.raises(ModelError, match="wanted an mmsegmentation configuration file"):
        load_model("g", changed(mmseg_settings, config=None), three_labels, GRID)


def test_an_image_without_a_file_has_no_answer(
    folder_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame]
) -> None:
    model = load_model("g", folder_settings, three_labels, GRID)
    stranger = Frame("s/none", frames[0].rgb, frames[0].size)
    assert model.predict([stranger, frames[0]])[0] is None


def test_a_map_of_another_size_than_its_image_is_refused(
    folder_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame]
) -> None:
    model = load_model("g", folder_settings, three_labels, GRID)
    with pytest.raises(ModelError, match=r"s/0\.png is 48 x 64 pixels, its image 99 x 98"):
        model.predict([Frame(frames[0].image_id, frames[0].rgb, (98, 99))])


@pytest.mark.parametrize("content", [b"", b"no png", "half"])
def test_a_damaged_map_is_named(
    folder_settings: ModelSettings,
    three_labels: LabelSet,
    frames: list[Frame],
    tmp_path: Path,
    content: object,
) -> None:
    root = Path(shutil.copytree(folder_settings.path, tmp_path / "m"))
    file = root / "s/0.png"
    file.write_bytes(content if isinstance(content, bytes) else file.read_bytes()[:-40])
    model = load_model("g", changed(folder_settings, path=root), three_labels, GRID)
    with pytest.raises(ModelError, match=r'model "g": .*s/0\.png'):
        model.predict(frames[:1])


def test_a_folder_without_maps_is_refused(
    folder_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no label map"):
        load_model("g", changed(folder_settings, path=tmp_path), three_labels, GRID)


def test_a_tflite_model_needs_its_class_names(tflite_settings: ModelSettings, three_labels: LabelSet) -> None:
    with pytest.raises(ModelError, match="list them under own_classes"):
        load_model("g", changed(tflite_settings, own_classes=None), three_labels, GRID)


def test_an_unknown_kind_lists_the_known_ones(folder_settings: ModelSettings, three_labels: LabelSet) -> None:
    with pytest.raises(
        UnknownKindError, match='kind "onxx" is unknown; wanted one of hf, mmseg, folder, tflite'
    ):
        load_model("g", changed(folder_settings, kind="onxx"), three_labels, GRID)


def test_a_kind_of_ones_own_is_found_and_a_runtime_it_lacks_is_named(
    folder_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_models.py").write_text(
        "from mad_backend.models.folder_model import FolderModel\n"
        "class Fine(FolderModel): pass\n"
        "class Late(FolderModel):\n"
        "    def __init__(self, *arguments):\n"
        "        import runtime_that_nobody_has\n"
        "class Other: pass\n"
    )
    (tmp_path / "their_broken.py").write_text("import another_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)

    def load(kind: str) -> SegmentationModel:
        return load_model("g", changed(folder_settings, kind=kind), three_labels, GRID)

    assert type(load("their_models:Fine")).__name__ == "Fine"
    with pytest.raises(MissingRuntimeError, match=r'model "g": .* needs runtime_that_nobody_has'):
        load("their_models:Late")
    with pytest.raises(MissingRuntimeError, match=r'model "g": .* needs another_that_nobody_has'):
        load("their_broken:Any")
    with pytest.raises(ModelError, match="is not a subclass of SegmentationModel"):
        load("their_models:Other")
