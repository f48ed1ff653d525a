"""TorchScript files: the forms of their answers, and what must be said about them."""

from pathlib import Path

import numpy as np
import pytest

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.registry import load_model
from mad_backend.settings import ModelSettings
from tests.models.small_files import new_mixer, write_torchscript
from tests.models.test_every_kind import changed

GRID = Grid(64)
FORMS = {
    "tensor": "x",
    "tuple": "(x, x.mean())",
    "list": "[x]",
    "out": '{"aux": x * 0, "out": x}',
    "logits": '{"logits": x}',
    "nothing": '{"something": x}',
    "flat": "x.flatten(1)",
    "fixed": "x.reshape(-1, 3, 32, 32)",
}
MODULE = """
import torch

class Form(torch.nn.Module):
    def __init__(self, mixer):
        super().__init__()
        self.mixer = mixer

    def forward(self, images):
        x = self.mixer(images)
        return {form}
"""


def of_form(form: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TorchScript reads the source of what it compiles, so it must lie in a file."""
    import importlib

    (folder / f"form_{form}.py").write_text(MODULE.format(form=FORMS[form]))
    monkeypatch.syspath_prepend(folder)
    module = importlib.import_module(f"form_{form}").Form(new_mixer())
    return write_torchscript(folder / "model.pt", module)


@pytest.mark.parametrize("form", ["tuple", "list", "out", "logits"])
def test_logits_are_found_in_an_answer_of_any_form(
    torchscript_settings: ModelSettings,
    three_labels: LabelSet,
    frames: list[Frame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    path = of_form(form, tmp_path, monkeypatch)
    plain = load_model("g", torchscript_settings, three_labels, GRID).predict(frames)
    found = load_model("g", changed(torchscript_settings, path=path), three_labels, GRID).predict(frames)
    for one, two in zip(plain, found, strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("form", ["nothing", "flat"])
def test_an_answer_without_logits_is_refused_when_the_model_is_loaded(
    torchscript_settings: ModelSettings,
    three_labels: LabelSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    path = of_form(form, tmp_path, monkeypatch)
    with pytest.raises(ModelError, match="wanted logits"):
        load_model("g", changed(torchscript_settings, path=path), three_labels, GRID)


def test_an_input_size_that_the_network_refuses_is_told(
    torchscript_settings: ModelSettings,
    three_labels: LabelSet,
    frames: list[Frame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = changed(torchscript_settings, path=of_form("fixed", tmp_path, monkeypatch))
    model = load_model("g", settings, three_labels, GRID)
    assert len(model.predict(frames)) == len(frames)
    why = r'model "g": its network fails on a batch of shape \(1, 3, 48, 48\).*; see its fit, input_size'
    with pytest.raises(ModelError, match=f"(?s){why}"):
        load_model("g", changed(settings, input_size=48), three_labels, GRID)


def test_mean_and_std_must_be_said(torchscript_settings: ModelSettings, three_labels: LabelSet) -> None:
    with pytest.raises(ModelError, match="give mean and std"):
        load_model("g", changed(torchscript_settings, std=None), three_labels, GRID)
