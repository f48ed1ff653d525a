"""The table of kinds: what is unknown, what is missing, and the door for kinds of one's own."""

import sys
from pathlib import Path

import pytest

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.errors import MissingRuntimeError, ModelError, SettingsError, UnknownKindError
from mad_backend.models.base import SegmentationModel
from mad_backend.models.registry import KINDS, TRAINABLE, load_model, stored_key
from mad_backend.settings import ModelSettings
from tests.models.test_every_kind import changed

GRID = Grid(64)


def test_an_unknown_kind_lists_the_known_ones(folder_settings: ModelSettings, three_labels: LabelSet) -> None:
    with pytest.raises(
        UnknownKindError, match=f'kind "onxx" is unknown; wanted one of {", ".join(KINDS)}, or "package'
    ):
        load_model("g", changed(folder_settings, kind="onxx"), three_labels, GRID)


def test_kinds_that_can_be_trained_are_kinds() -> None:
    assert set(KINDS) >= TRAINABLE


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [
        ("hf", "transformers"),
        ("onnx", "onnxruntime"),
        ("smp", "segmentation_models_pytorch"),
        ("tflite", "ai_edge_litert"),
        ("torchscript", "torch"),
        ("torchvision", "torchvision"),
    ],
)
def test_a_runtime_that_is_not_installed_is_named_with_its_extra(
    request: pytest.FixtureRequest,
    three_labels: LabelSet,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    runtime: str,
) -> None:
    settings: ModelSettings = request.getfixturevalue(f"{kind}_settings")
    for name in [name for name in sys.modules if name.partition(".")[0] == runtime]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, runtime, None)  # as Python itself marks what cannot be imported
    with pytest.raises(
        MissingRuntimeError,
        match=rf'model "g": kind "{kind}" needs {runtime}.*; pip install \'mad-segmentation\[{kind}\]\'',
    ):
        load_model("g", settings, three_labels, GRID)


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
    with pytest.raises(ModelError, match=r"is not a subclass of SegmentationModel, nor .* gives a Other"):
        load_model("g", ModelSettings(kind="their_models:Other"), three_labels, GRID)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"label_studio"}))
def test_a_kind_of_files_needs_a_path(three_labels: LabelSet, tmp_path: Path, kind: str) -> None:
    (tmp_path / "c.py").touch()
    settings = ModelSettings(kind=kind, url="http://127.0.0.1:9", config=tmp_path / "c.py")
    for load in (load_model, stored_key):
        with pytest.raises((SettingsError, ModelError), match=r"needs path|is not a segmentation network"):
            load("g", settings, three_labels, GRID)
