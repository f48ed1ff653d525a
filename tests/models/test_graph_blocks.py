"""Known blocks of other libraries give the same logits with less work, down to real networks and photos."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mad_backend.models.graph import InferenceGraph
from mad_backend.models.torchvision_operators import define_missing_operators
from tests.models.graph_checks import called, check, equal, images, rewritten, settled


def of_transformers(module: Any, batch: Tensor) -> Tensor:
    logits: Tensor = module(pixel_values=batch).logits
    return logits


def of_mmseg(module: Any, batch: Tensor) -> Tensor:
    logits: Tensor = module(batch, mode="tensor")
    return logits


@pytest.mark.parametrize("tf_padding", [True, False])
def test_mobilenet_of_transformers(tf_padding: bool) -> None:
    define_missing_operators()
    from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation

    config = MobileNetV2Config(depth_multiplier=0.25, output_stride=16, tf_padding=tf_padding, num_labels=4)
    graph = check(settled(MobileNetV2ForSemanticSegmentation(config)), of_transformers)
    assert len([m for m in rewritten(graph) if type(m) is nn.BatchNorm2d]) == 55


def test_segformer_of_transformers() -> None:
    define_missing_operators()
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 24],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        num_labels=4,
    )
    graph = check(settled(SegformerForSemanticSegmentation(config)), of_transformers)
    assert graph._twin.decode_head in rewritten(graph)


def test_segformer_of_segmentation_models_pytorch() -> None:
    define_missing_operators()
    smp = pytest.importorskip("segmentation_models_pytorch")
    network = smp.Segformer("mit_b0", encoder_weights=None, decoder_segmentation_channels=16, classes=4)
    graph = InferenceGraph("m", settled(network), called, (64, 64))
    for image in images((64, 64), (96, 32)):
        assert equal(graph(image), network(image))
    assert graph.is_fused
    assert graph._twin.decoder in rewritten(graph)


def test_segformer_of_mmsegmentation() -> None:
    from mad_backend.models.mmseg_model import build_segmentor, quietly

    with quietly():
        from mmengine.config import ConfigDict
    backbone = {
        "type": "MixVisionTransformer",
        "embed_dims": 8,
        "num_layers": [1, 1, 1, 1],
        "num_heads": [1, 2, 4, 8],
        "sr_ratios": [8, 4, 2, 1],
    }
    head = {
        "type": "SegformerHead",
        "in_channels": [8, 16, 32, 64],
        "in_index": [0, 1, 2, 3],
        "channels": 16,
        "num_classes": 5,
        "norm_cfg": {"type": "BN"},
        "align_corners": False,
    }
    config = ConfigDict(model={"type": "EncoderDecoder", "backbone": backbone, "decode_head": head})
    graph = check(settled(build_segmentor("m", config)), of_mmseg)
    assert graph._twin.decode_head in rewritten(graph)
    attentions = [m for m in graph._twin.modules() if type(m) is nn.MultiheadAttention]
    assert len(attentions) == 4
    assert set(attentions) <= set(rewritten(graph))


@pytest.mark.parametrize("name", ["deeplabv3_mnv2_050", "deeplabv3_mnv2_100"])
def test_label_maps_of_real_photos_are_the_same(shared_data: Path, name: str) -> None:
    define_missing_operators()
    from transformers import MobileNetV2ForSemanticSegmentation

    module = MobileNetV2ForSemanticSegmentation.from_pretrained(
        shared_data / "models" / "hf" / name, local_files_only=True
    ).eval()
    graph = InferenceGraph(name, module, of_transformers, (513, 513))
    for path in sorted((shared_data / "voc" / "JPEGImages").iterdir())[:3]:
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32)
        image = torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = of_transformers(module, image).argmax(1)
        assert float((graph(image).argmax(1) == expected).float().mean()) > 0.999
    assert graph.is_fused
