"""What all PyTorch kinds share: weights, devices, precision; and that nothing is unpickled."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.registry import load_model, stored_key
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import ModelSettings
from tests.models.test_every_kind import changed

GRID = Grid(64)
TORCH_KINDS = ("hf", "mmseg", "smp", "torchscript", "torchvision")


@pytest.fixture(scope="module", params=TORCH_KINDS)
def of_torch(request: pytest.FixtureRequest) -> ModelSettings:
    found: ModelSettings = request.getfixturevalue(f"{request.param}_settings")
    return found


def load(settings: ModelSettings, labels: LabelSet) -> TorchModel:
    model = load_model("g", settings, labels, GRID)
    assert isinstance(model, TorchModel)
    return model


def agreement(one: TorchModel, two: TorchModel, frames: list[Frame]) -> float:
    pairs = zip(one.predict(frames), two.predict(frames), strict=True)
    return float(np.mean([(a == b).mean() for a, b in pairs if a is not None and b is not None]))


class TestTorchKinds:
    def test_a_wrong_number_of_class_names_is_refused(
        self, of_torch: ModelSettings, three_labels: LabelSet
    ) -> None:
        with pytest.raises(ModelError, match="has 3 output classes, but 2 class names are known"):
            load(changed(of_torch, own_classes=("cat", "dog")), three_labels)

    def test_what_is_saved_answers_as_what_was_loaded(
        self, of_torch: ModelSettings, three_labels: LabelSet, frames: list[Frame], tmp_path: Path
    ) -> None:
        model = load(of_torch, three_labels)
        again = load(changed(of_torch, path=model.save(tmp_path / "new")), three_labels)
        assert agreement(model, again, frames) > 0.999

    def test_half_precision_gives_nearly_the_same_maps_under_another_key(
        self, of_torch: ModelSettings, three_labels: LabelSet, frames: list[Frame]
    ) -> None:
        model, half = load(of_torch, three_labels), load(changed(of_torch, precision="bf16"), three_labels)
        assert agreement(model, half, frames) > 0.8
        assert model.key != half.key

    def test_fp16_is_refused_on_a_cpu(self, of_torch: ModelSettings, three_labels: LabelSet) -> None:
        with pytest.raises(ModelError, match='model "g": precision fp16 is for GPUs'):
            load(changed(of_torch, precision="fp16", device="cpu"), three_labels)

    @pytest.mark.parametrize("device", ["cuda:63", "mps"])
    def test_a_device_that_is_not_there_is_named(
        self, of_torch: ModelSettings, three_labels: LabelSet, device: str
    ) -> None:
        with pytest.raises(ModelError, match=f'model "g": device "{device}" is not on this machine'):
            load(changed(of_torch, device=device), three_labels)

    def test_on_a_gpu_the_maps_are_the_same(
        self, of_torch: ModelSettings, three_labels: LabelSet, frames: list[Frame]
    ) -> None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")
        here, there = (load(changed(of_torch, device=d), three_labels) for d in ("cpu", "cuda:0"))
        assert there.device.type == "cuda"
        assert agreement(here, there, frames) > 0.99


def test_damaged_weights_of_a_folder_are_refused_by_name(
    hf_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(hf_settings.required_path, tmp_path / "m"))
    (copied / "model.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(ModelError, match=f'model "g": .*{copied.name}'):
        load(changed(hf_settings, path=copied), three_labels)


def test_weights_of_another_network_are_refused(
    torchvision_settings: ModelSettings, smp_settings: ModelSettings, three_labels: LabelSet
) -> None:
    with pytest.raises(ModelError, match="has no classifier"):
        load(changed(torchvision_settings, path=smp_settings.path), three_labels)
    with pytest.raises(ModelError, match="has no segmentation_head"):
        load(changed(smp_settings, path=torchvision_settings.path), three_labels)
    with pytest.raises(ModelError, match=r'model "g": .* does not fit its network: [^:]*:\s+size mismatch'):
        load(changed(smp_settings, encoder="tu-lcnet_050"), three_labels)


EVIL = "import pathlib; pathlib.Path({!r}).touch()"


class _Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (EVIL.format(str(self.target)),)


@pytest.mark.parametrize("kind", ["mmseg", "torchvision", "smp", "torchscript"])
@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickled_object_is_refused_and_not_executed(
    request: pytest.FixtureRequest, three_labels: LabelSet, tmp_path: Path, kind: str, *, legacy: bool
) -> None:
    import torch

    path, trace = tmp_path / "evil.pth", tmp_path / "executed"
    checkpoint = {"state_dict": {}, "meta": _Evil(trace)}
    if legacy:
        path.write_bytes(pickle.dumps(checkpoint, protocol=2))
    else:
        torch.save(checkpoint, path)
    settings: ModelSettings = request.getfixturevalue(f"{kind}_settings")
    why = "is not a TorchScript file" if kind == "torchscript" else "holds more than tensors"
    with pytest.raises(ModelError, match=rf'model "g": .*evil\.pth {why}'):
        load(changed(settings, path=path), three_labels)
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["mmseg", "torchvision", "smp"])
@pytest.mark.parametrize("key", ["state_dict", "model", None])
def test_a_pth_of_tensors_is_read(
    request: pytest.FixtureRequest, three_labels: LabelSet, tmp_path: Path, kind: str, key: str | None
) -> None:
    import torch

    settings: ModelSettings = request.getfixturevalue(f"{kind}_settings")
    weights = load(settings, three_labels).module.state_dict()
    torch.save({key: weights, "epoch": 3} if key else weights, tmp_path / "m.pth")
    again = load(changed(settings, path=tmp_path / "m.pth"), three_labels).module.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    torch.save({"epoch": 3}, tmp_path / "m.pth")
    with pytest.raises(ModelError, match=r"m\.pth is not a state_dict"):
        load(changed(settings, path=tmp_path / "m.pth"), three_labels)


def test_the_key_tells_the_precision_and_the_colours(
    torchscript_settings: ModelSettings, three_labels: LabelSet
) -> None:
    variants = [
        {},
        {"precision": "bf16"},
        {"mean": (0.0, 0.0, 0.0)},
        {"std": (1.0, 1.0, 1.0)},
        {"fit": "stretch"},
        {"input_size": 32},
        {"input_size": (32, 64)},
        {"align_corners": True},
    ]
    keys = {stored_key("g", changed(torchscript_settings, **v), three_labels, GRID) for v in variants}
    assert len(keys) == len(variants)
