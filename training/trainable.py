"""What makes a target trainable by mmengine: transforms for its images, and a segmentor around hf networks."""

from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel

from mad_backend.core.labels import VOID, LabelMap
from mad_backend.errors import TrainingError
from mad_backend.models.hf_model import HfModel
from mad_backend.models.mmseg_model import MmsegModel, quietly
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import TrainingSettings

LOADERS = frozenset({"LoadImageFromFile", "LoadAnnotations"})


class HfSegmentor(BaseModel):  # type: ignore[misc]
    """A transformers network with mmsegmentation's pre-processing and the cross-entropy of Sec. 4.1.

    Its `loss` is taken at full resolution and ignores void (255); logits are upsampled as in `TorchModel.predict`.
    """

    def __init__(self, model: HfModel) -> None:
        super().__init__(
            data_preprocessor={
                "type": "SegDataPreProcessor",
                "mean": model.mean,
                "std": model.std,
                "bgr_to_rgb": True,
                "pad_val": 0,
                "seg_pad_val": 255,
                **({"size": model.canvas.size} if model.canvas.fit == "pad" else {"size_divisor": 1}),
            }
        )
        self.network = model.module
        self._adapter = [model]  # in a list, so that the adapter is not taken for a sub-module

    def forward(self, inputs: torch.Tensor, data_samples: list[Any], mode: str = "tensor") -> Any:
        """{"loss": cross-entropy} in mode "loss", logits (n, C, h, w) otherwise."""
        model = self._adapter[0]
        logits = model.logits(inputs)
        if mode != "loss":
            return logits
        truth = torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in data_samples]).long()
        upsampled = torch.nn.functional.interpolate(
            logits, size=truth.shape[-2:], mode="bilinear", align_corners=model.align_corners
        )
        return {"loss_ce": torch.nn.functional.cross_entropy(upsampled, truth, ignore_index=VOID)}


def build_transforms(model: TorchModel, settings: TrainingSettings) -> Any:
    """The transforms between a loaded sample and the network.

    An mmseg configuration's own train_pipeline, less its loaders; else random crop and flip by the settings.
    """
    with quietly():
        from mmcv.transforms import Compose
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=True)
    own = model.config.get("train_pipeline") if isinstance(model, MmsegModel) else None
    if own:
        return Compose([step for step in own if step["type"] not in LOADERS])
    steps: list[dict[str, Any]] = []
    if model.canvas.fit == "stretch":
        height, width = model.canvas.size
        steps.append({"type": "Resize", "scale": (width, height), "keep_ratio": False})
    if settings.crop:
        steps.append(
            {"type": "RandomCrop", "crop_size": (settings.crop, settings.crop), "cat_max_ratio": 0.9}
        )
    if settings.horizontal_flip:
        steps.append({"type": "RandomFlip", "prob": 0.5})
    return Compose([*steps, {"type": "PackSegInputs"}])


def own_ids(model: TorchModel) -> LabelMap:
    """(256,) uint8 from ids of the label set to the network's own; what it has no output for becomes void.

    Raises TrainingError for more than 255 outputs: label maps of that many classes are not uint8.
    """
    if len(model.own_classes) > VOID:
        raise TrainingError(
            f'model "{model.name}" has {len(model.own_classes)} outputs; at most {VOID} can be trained'
        )
    inverse = np.full(256, VOID, np.uint8)
    # From the last to the first: of several outputs merged into one class the first is trained.
    for own_id in reversed(range(VOID)):
        if model.table[own_id] < len(model.labels):
            inverse[model.table[own_id]] = own_id
    return inverse
