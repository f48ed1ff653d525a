"""mmsegmentation's ways of building and asking its networks, against its own inference."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelClass, LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.mmseg_files import config_files
from mad_backend.models.mmseg_model import MmsegModel, build_segmentor, read_config
from mad_backend.models.registry import load_model, stored_key
from mad_backend.models.weights import save_weights
from mad_backend.settings import ModelSettings
from tests.models.test_every_kind import changed

GRID = Grid(64)
SLIDE = 'model = dict(test_cfg=dict(mode="slide", crop_size=(40, 40), stride=(24, 24)))'
AUXILIARY = """
model = dict(auxiliary_head=[dict(type="FCNHead", in_channels=8, channels=8, num_convs=1, num_classes=3, in_index=i,
    norm_cfg=dict(type="SyncBN", requires_grad=True), concat_input=False, align_corners=False,
    loss_decode=dict(type="CrossEntropyLoss", loss_weight=0.4)) for i in (1, 2)],
    backbone=dict(norm_cfg=dict(type="SyncBN", requires_grad=True)))
"""
CASCADE = """
norm = dict(type="SyncBN", requires_grad=True)
model = dict(type="CascadeEncoderDecoder", num_stages=2, decode_head=[
    dict(type="FCNHead", in_channels=8, channels=8, num_convs=1, num_classes=3, in_index=-1, norm_cfg=norm,
        concat_input=False, align_corners=True, loss_decode=dict(type="CrossEntropyLoss", loss_weight=0.4)),
    dict(type="OCRHead", in_channels=8, channels=8, ocr_channels=8, num_classes=3, in_index=-1, norm_cfg=norm,
        align_corners=True, loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0))])
"""
PRETRAINED = """
model = dict(pretrained="open-mmlab://nothing", backbone=dict(init_cfg=dict(
    type="Pretrained", checkpoint="https://example.invalid/weights.pth")))
"""
ALIGNED = "model = dict(decode_head=dict(align_corners=True))"
VARIANTS = {
    "plain": "",
    "aligned": ALIGNED,
    "slide": SLIDE,
    "auxiliary": AUXILIARY,
    "cascade": CASCADE,
    "pretrained": PRETRAINED,
    "no_test_cfg": "model = dict(test_cfg=None)",
}


def variant(settings: ModelSettings, folder: Path, text: str) -> ModelSettings:
    """The small network of the fixture with `text` over it, with fresh weights."""
    import torch

    config = folder / "variant.py"
    config.write_text(f'_base_ = "{settings.config}"\n{text}')
    torch.manual_seed(1)
    network = build_segmentor("g", read_config(config))
    return changed(settings, config=config, path=save_weights(network, folder))


def asked_directly(model: MmsegModel, frame: Frame) -> Any:
    """What mmsegmentation's own inference and choice give for one frame, kept at its size."""
    import torch

    batch = model.batch([frame.rgb])
    size = tuple(batch.shape[-2:])
    meta = {"img_shape": size, "ori_shape": size, "pad_shape": size}
    with torch.inference_mode():
        logits = model.module.inference(batch, [meta])
        return model.module.postprocess_result(logits)[0].pred_sem_seg.data[0].numpy()


@pytest.mark.parametrize("name", VARIANTS)
def test_maps_are_those_of_mmsegmentations_own_inference(
    mmseg_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame], tmp_path: Path, name: str
) -> None:
    settings = changed(variant(mmseg_settings, tmp_path, VARIANTS[name]), fit="keep")
    model = load_model("g", settings, three_labels, GRID)
    assert isinstance(model, MmsegModel)
    for frame in frames[:2]:
        (label_map,) = model.predict([frame])
        assert label_map is not None
        assert (label_map == asked_directly(model, frame)).mean() > 0.999


def test_a_head_with_one_output_begins_its_class_at_its_threshold(
    mmseg_settings: ModelSettings, frames: list[Frame], tmp_path: Path
) -> None:
    two = LabelSet("two", (LabelClass("background", (0, 0, 0)), LabelClass("cat", (1, 1, 1))))
    for threshold in (0.3, 0.5, 0.7):
        binary = f"model = dict(decode_head=dict(num_classes=2, out_channels=1, threshold={threshold}, "
        binary += 'loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=True)))'
        settings = changed(variant(mmseg_settings, tmp_path, binary), fit="keep")
        model = load_model("g", settings, two, GRID)
        assert isinstance(model, MmsegModel)
        (label_map,) = model.predict(frames[:1])
        assert label_map is not None
        assert (label_map == asked_directly(model, frames[0])).mean() > 0.999


def test_batch_norm_is_for_one_process_and_no_weights_are_looked_for(
    mmseg_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path
) -> None:
    import torch

    model = load_model("g", variant(mmseg_settings, tmp_path, AUXILIARY), three_labels, GRID)
    assert isinstance(model, MmsegModel)
    norms = [m for m in model.module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert {type(m) for m in norms} == {torch.nn.BatchNorm2d}
    model = load_model("g", variant(mmseg_settings, tmp_path, PRETRAINED), three_labels, GRID)
    assert isinstance(model, MmsegModel)
    model.module.init_weights()  # as a training run does; it would ask for the address


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
        model = load_model("g", changed(mmseg_settings, config=path, fit="keep"), three_labels, GRID)
        assert isinstance(model, MmsegModel)
        rgb = frames[0].rgb
        as_opencv_reads = torch.from_numpy(np.ascontiguousarray(rgb[:, :, ::-1])).permute(2, 0, 1)
        data = {"inputs": [as_opencv_reads]}
        preprocessor = model.module.data_preprocessor
        preprocessor.size = None
        preprocessor.test_cfg = None
        expected = preprocessor(data, training=False)["inputs"][0]
        tensors.append(model.batch([rgb])[0])
        assert torch.allclose(tensors[-1], expected, atol=1e-5)
    assert not torch.allclose(*tensors)


def test_a_missing_configuration_is_named(mmseg_settings: ModelSettings, three_labels: LabelSet) -> None:
    with pytest.raises(ModelError, match="wanted an mmsegmentation configuration file"):
        load_model("g", changed(mmseg_settings, config=None), three_labels, GRID)


def test_what_mmsegmentation_cannot_build_is_told(
    mmseg_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path
) -> None:
    config = tmp_path / "c.py"
    for text, why in (
        ('model = dict(type="NoSuchSegmentor")', "NoSuchSegmentor"),
        ("model = dict(", "c.py"),
        ("raise ValueError('stop')", "stop"),
    ):
        config.write_text(text)
        with pytest.raises(ModelError, match=why):
            load_model("g", changed(mmseg_settings, config=config), three_labels, GRID)


class TestConfigurationFiles:
    def test_bases_are_followed_in_every_form_without_being_executed(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "a.py").write_text('_base_ = ["sub/b.py", "./c.yaml"]\nraise SystemExit("executed")\n')
        (tmp_path / "sub" / "b.py").write_text('_base_ = "../d.json"\n_base_x = 3\n')
        (tmp_path / "c.yaml").write_text("model: {}\n")
        (tmp_path / "d.json").write_text('{"_base_": "e.py"}')
        (tmp_path / "e.py").write_text(
            "from mmengine.config import read_base\n"
            "with read_base():\n    from .sub.f import *\n    from . import g\n    import os\n"
        )
        (tmp_path / "sub" / "f.py").write_text("_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'\n")
        (tmp_path / "g.py").write_text("_base_ = './a.py'\n")
        names = [path.name for path in config_files(tmp_path / "a.py")]
        assert sorted(names) == ["a.py", "b.py", "c.yaml", "d.json", "e.py", "f.py", "g.py"]

    def test_a_base_that_changes_is_another_model(
        self, mmseg_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path
    ) -> None:
        assert mmseg_settings.config
        (tmp_path / "base.py").write_text(mmseg_settings.config.read_text())
        (tmp_path / "child.py").write_text('_base_ = ["./base.py"]\n')
        settings = changed(mmseg_settings, config=tmp_path / "child.py")
        before = stored_key("g", settings, three_labels, GRID)
        assert load_model("g", settings, three_labels, GRID).key == before
        (tmp_path / "base.py").write_text(mmseg_settings.config.read_text() + "\n# as it was\n")
        assert stored_key("g", settings, three_labels, GRID) != before
        (tmp_path / "base.py").unlink()
        with pytest.raises(ModelError, match=r"there is no .*base\.py"):
            stored_key("g", settings, three_labels, GRID)

    def test_bases_that_are_computed_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.py").write_text('_base_ = ["b.py"] * 2 + [__file__]\n')
        with pytest.raises(ModelError, match=r"a\.py: _base_ must be a name or a list of names"):
            config_files(tmp_path / "a.py")
