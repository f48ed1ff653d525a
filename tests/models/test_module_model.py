"""Networks of somebody's own, named as "package.module:Class"."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelClass, LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.module_model import ModuleModel
from mad_backend.models.registry import is_trainable, load_model, stored_key
from mad_backend.settings import ModelSettings

GRID = Grid(64)
LABELS = LabelSet("eight", tuple(LabelClass(f"c{n}", (0, 0, 0)) for n in range(8)))
PLACE = "tests.training.finetuning.tiny_network"


def model_of(name: str, path: Path | None = None) -> ModuleModel:
    model = load_model("own", ModelSettings(kind=f"{PLACE}:{name}", path=path), LABELS, GRID, "cpu")
    assert isinstance(model, ModuleModel)
    return model


def test_a_class_or_function_gives_the_network_and_the_answer_may_have_many_forms(
    frames: list[Frame],
) -> None:
    maps = [
        model_of(name).predict(frames)
        for name in ("TinyNet", "of_eight", "by_position", "DictNet", "TupleNet")
    ]
    for other in maps[1:]:
        for one, two in zip(maps[0], other, strict=True):
            assert one is not None
            assert two is not None
            np.testing.assert_array_equal(one, two)
    assert is_trainable(f"{PLACE}:TinyNet")


def test_weights_are_written_and_read_again_and_are_in_the_key(frames: list[Frame], tmp_path: Path) -> None:
    model = model_of("TinyNet")
    with torch.no_grad():
        model.module.head.bias.add_(torch.arange(8))
    path = model.save(tmp_path)
    again = model_of("TinyNet", path)
    for one, two in zip(model.predict(frames), again.predict(frames), strict=True):
        assert one is not None
        assert two is not None
        np.testing.assert_array_equal(one, two)
    assert again.key != model.key
    assert stored_key("own", again.settings, LABELS, GRID) == again.key


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("of_two_needs", "needs width; wanted a class or function that takes the number of classes"),
        ("flat", "answers a tensor of shape"),
        ("no_network", "nor does it give a torch.nn.Module: it gives a str"),
        ("missing", "is not a subclass of SegmentationModel, nor a class or function"),
    ],
)
def test_what_gives_no_network_is_named(name: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        model_of(name)


def test_another_number_of_outputs_and_other_weights_are_named(tmp_path: Path) -> None:
    settings = ModelSettings(kind=f"{PLACE}:of_eight", own_classes=("c0", "c1"))
    with pytest.raises(ModelError, match="8 output classes, but 2 class names"):
        load_model("own", settings, LABELS, GRID)
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth does not fit its network"):
        model_of("TinyNet", tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"there is no .*none\.pth; wanted weights"):
        model_of("TinyNet", tmp_path / "none.pth")
