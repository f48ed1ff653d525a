"""Families of transformers networks, each small, from the folders that save_pretrained writes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mad_backend.core.grid import Grid
from mad_backend.core.labels import VOID, LabelClass, LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.registry import load_model, stored_key
from mad_backend.models.torch_model import TorchModel
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.settings import ModelSettings
from tests.models.conftest import CLASSES
from tests.models.test_every_kind import changed

GRID = Grid(64)
NAMES = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: n for n, name in enumerate(CLASSES)}}
VIT = {
    "image_size": 64,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def _mobilenet_v2(hf: Any) -> Any:
    config = hf.MobileNetV2Config(depth_multiplier=0.1, min_depth=8, output_stride=16, image_size=64, **NAMES)
    return hf.MobileNetV2ForSemanticSegmentation(config)


def _beit(hf: Any) -> Any:
    config = hf.BeitConfig(
        **VIT, out_indices=[1, 2, 3, 4], use_auxiliary_head=False, pool_scales=[1, 2], **NAMES
    )
    return hf.BeitForSemanticSegmentation(config)


def _dpt(hf: Any) -> Any:
    config = hf.DPTConfig(
        **VIT,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        use_auxiliary_head=False,
        **NAMES,
    )
    return hf.DPTForSemanticSegmentation(config)


def _upernet(hf: Any) -> Any:
    backbone = hf.ConvNextConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = hf.UperNetConfig(
        backbone_config=backbone,
        hidden_size=8,
        pool_scales=[1, 2],
        auxiliary_channels=8,
        auxiliary_in_channels=8,
        **NAMES,
    )
    return hf.UperNetForSemanticSegmentation(config)


def _mobilevit(hf: Any) -> Any:
    config = hf.MobileViTConfig(
        image_size=64,
        hidden_sizes=[8, 8, 8],
        neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 8],
        num_attention_heads=2,
        **NAMES,
    )
    return hf.MobileViTForSemanticSegmentation(config)


@pytest.mark.parametrize("build", [_mobilenet_v2, _beit, _dpt, _upernet, _mobilevit])
def test_networks_of_every_family_answer(
    three_labels: LabelSet, frames: list[Frame], tmp_path: Path, build: Callable[[Any], Any]
) -> None:
    define_missing_operators()
    import torch
    import transformers

    torch.manual_seed(0)
    build(transformers).save_pretrained(tmp_path / "m")
    settings = ModelSettings(kind="hf", path=tmp_path / "m")
    model = load_model("g", settings, three_labels, GRID)
    for label_map, frame in zip(model.predict(frames), frames, strict=True):
        assert label_map is not None
        assert label_map.shape == frame.rgb.shape[:2]
        assert set(np.unique(label_map)) <= {0, 1, 2}


def test_a_network_of_more_classes_than_the_label_set_has_a_rule_for_the_rest(
    hf_settings: ModelSettings, frames: list[Frame]
) -> None:
    labels = LabelSet("pets", tuple(LabelClass(n, (0, 0, 0)) for n in ("background", "cat")))
    with pytest.raises(ModelError, match=r"\['dog'\] are not in label set"):
        load_model("g", hf_settings, labels, GRID)
    maps = {}
    for rest in ("background", "ignore", "cat"):
        model = load_model("g", changed(hf_settings, classes={"*": rest}), labels, GRID)
        maps[rest] = model.predict(frames)[0]
    assert np.array_equal(maps["ignore"] == VOID, (maps["background"] == 0) & (maps["ignore"] != 0))
    assert np.array_equal(maps["ignore"] == VOID, (maps["cat"] == 1) & (maps["ignore"] != 1))


def test_the_folder_tells_how_images_are_normalised_and_the_key_tells_it_too(
    hf_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(hf_settings.required_path, tmp_path / "m"))
    settings = changed(hf_settings, path=path)
    keys = {stored_key("g", settings, three_labels, GRID)}
    for statistics, mean, std in (
        ({"image_mean": [0.5, 0.4, 0.3], "image_std": [1, 1, 1]}, (127.5, 102, 76.5), (255, 255, 255)),
        ({"do_normalize": False, "image_mean": [0.5, 0.5, 0.5]}, (0, 0, 0), (255, 255, 255)),
        ({}, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ):
        (path / "preprocessor_config.json").write_text(json.dumps(statistics))
        model = load_model("g", settings, three_labels, GRID)
        assert isinstance(model, TorchModel)
        assert (model.mean, model.std) == (pytest.approx(mean), pytest.approx(std))
        keys.add(model.key)
    assert len(keys) == 4
    model = load_model("g", changed(settings, mean=(1.0, 2.0, 3.0)), three_labels, GRID)
    assert isinstance(model, TorchModel)
    assert model.mean == (1, 2, 3)


def test_code_that_comes_with_a_folder_is_not_run(
    hf_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(hf_settings.required_path, tmp_path / "m"))
    config = json.loads((path / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}
    (path / "config.json").write_text(json.dumps(config))
    trace = tmp_path / "executed"
    (path / "evil.py").write_text(f"open({str(trace)!r}, 'w')")
    with pytest.raises(ModelError, match='model "g": transformers cannot load'):
        load_model("g", changed(hf_settings, path=path), three_labels, GRID)
    assert not trace.exists()
