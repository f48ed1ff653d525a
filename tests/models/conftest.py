"""Small random networks as files, one fixture for each kind, and the real data where it is there."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.labels import LabelClass, LabelSet
from mad_backend.core.records import Frame
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.settings import ModelSettings
from tests.models.ml_backend import MlBackend, running
from tests.models.small_files import (
    MEAN,
    STD,
    new_mixer,
    write_onnx,
    write_own_model,
    write_tflite,
    write_torchscript,
)

CLASSES = ("background", "cat", "dog")
MMSEG_CONFIG = """
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0],
        bgr_to_rgb={bgr_to_rgb}, pad_val=0, seg_pad_val=255, size=(64, 64)),
    backbone=dict(type="FastSCNN", downsample_dw_channels=(4, 8), global_in_channels=8,
        global_block_channels=(8, 8, 8), global_block_strides=(2, 2, 1), global_out_channels=8,
        higher_in_channels=8, lower_in_channels=8, fusion_out_channels=8, out_indices=(0, 1, 2),
        norm_cfg=dict(type="BN"), align_corners=False),
    decode_head=dict(type="FCNHead", in_channels=8, channels=8, num_convs=1, num_classes=3, in_index=-1,
        norm_cfg=dict(type="BN"), concat_input=False, align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0)),
    train_cfg=dict(), test_cfg=dict(mode="whole"))
"""


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small only wait for their own threads, on a busy machine for seconds."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def three_labels() -> LabelSet:
    return LabelSet("three", tuple(LabelClass(n, (0, 0, 0)) for n in CLASSES))


@pytest.fixture(scope="session")
def frames() -> list[Frame]:
    """Five frames on a 64-pixel letterbox grid, of three shapes, smooth enough to have regions."""
    rng = np.random.default_rng(0)
    found = []
    for n, (height, width) in enumerate([(64, 48), (32, 64), (64, 48), (20, 20), (32, 64)]):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        rgb = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        found.append(Frame(f"s/{n}", rgb, (height, width)))
    return found


@pytest.fixture(scope="session")
def hf_settings(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    define_missing_operators()
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        sr_ratios=[1, 1, 1, 1],
        decoder_hidden_size=16,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: n for n, name in enumerate(CLASSES)},
    )
    path = tmp_path_factory.mktemp("hf")
    SegformerForSemanticSegmentation(config).save_pretrained(path)
    return ModelSettings(kind="hf", path=path)


@pytest.fixture(scope="session")
def mmseg_settings(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    import torch
    from safetensors.torch import save_file

    from mad_backend.models.mmseg_model import build_segmentor, read_config

    root = tmp_path_factory.mktemp("mmseg")
    config = root / "config.py"
    config.write_text(MMSEG_CONFIG.format(bgr_to_rgb=True))
    torch.manual_seed(0)
    network = build_segmentor("m", read_config(config))
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, root / "model.safetensors")
    return ModelSettings(kind="mmseg", path=root / "model.safetensors", config=config)


@pytest.fixture(scope="session")
def torchvision_settings(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    define_missing_operators()
    import torch
    from safetensors.torch import save_file
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(0)
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    for layer in (network.classifier.low_classifier, network.classifier.high_classifier):
        torch.nn.init.zeros_(layer.bias)  # at random it outweighs what such a network sees
    path = tmp_path_factory.mktemp("torchvision") / "model.safetensors"
    save_file(network.state_dict(), path)
    return ModelSettings(kind="torchvision", architecture="lraspp_mobilenet_v3_large", path=path)


@pytest.fixture(scope="session")
def smp_settings(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    define_missing_operators()
    import segmentation_models_pytorch as smp
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = smp.Linknet("tu-lcnet_035", encoder_weights=None, classes=3)
    path = tmp_path_factory.mktemp("smp") / "model.safetensors"
    save_file(network.state_dict(), path)
    return ModelSettings(kind="smp", architecture="Linknet", encoder="tu-lcnet_035", path=path)


@pytest.fixture(scope="session")
def torchscript_settings(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    path = write_torchscript(tmp_path_factory.mktemp("torchscript") / "model.pt", new_mixer())
    return ModelSettings(kind="torchscript", path=path, mean=MEAN, std=STD)


@pytest.fixture(scope="session")
def onnx_settings(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    path = write_onnx(tmp_path_factory.mktemp("onnx") / "model.onnx")
    return ModelSettings(kind="onnx", path=path, mean=MEAN, std=STD)


@pytest.fixture(scope="session")
def tflite_settings(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    path = write_tflite(tmp_path_factory.mktemp("tflite") / "model.tflite")
    return ModelSettings(kind="tflite", path=path, own_classes=CLASSES, mean=MEAN, std=STD)


@pytest.fixture(scope="session")
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelSettings]:
    """A kind of somebody's own, in a module that is found by its name."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield ModelSettings(kind="their_brightness:Brightness", path=write_own_model(folder))


@pytest.fixture(scope="session")
def folder_settings(tmp_path_factory: pytest.TempPathFactory, frames: list[Frame]) -> ModelSettings:
    root = tmp_path_factory.mktemp("maps")
    (root / "s").mkdir()
    rng = np.random.default_rng(1)
    for n, frame in enumerate(frames):
        ids = rng.integers(0, 3, frame.size, np.uint8)
        path = root / frame.image_id
        match n:
            case 1:
                np.save(path.with_suffix(".npy"), ids.astype(np.int64))
            case 2:
                np.savez_compressed(path.with_suffix(".npz"), ids)
            case _:
                Image.fromarray(ids).save(path.with_suffix(".png"))
    return ModelSettings(kind="folder", path=root)


@pytest.fixture(scope="session")
def label_studio_settings() -> Iterator[ModelSettings]:
    with running(MlBackend()) as backend:
        yield ModelSettings(kind="label_studio", url=backend.url)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data that lies beside the repository, not in it."""
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder}")
    return folder
