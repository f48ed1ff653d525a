"""From a loaded sample to what the network is trained on: crops, flips, and the network's own class ids."""

from typing import Any

import numpy as np

from mad_backend.core.labels import VOID, LabelMap
from mad_backend.errors import TrainingError
from mad_backend.models.mmseg_model import MmsegModel, quietly
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import TrainingSettings

LOADERS = frozenset({"LoadImageFromFile", "LoadAnnotations"})

FIXED = frozenset({"Resize", "RandomFlip", "PackSegInputs"})
"""Steps after which an image is one of a few."""


def build_transforms(model: TorchModel, settings: TrainingSettings) -> Any:
    """The transforms between a loaded sample and the network.

    An mmseg configuration's own train_pipeline, less its loaders, unless settings give crop, scale or photometric;
    else what settings say. What a random scale makes larger than the network's input is cropped to it.
    """
    with quietly():
        from mmcv.transforms import Compose
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=True)
    own = model.config.get("train_pipeline") if isinstance(model, MmsegModel) else None
    if own and not (settings.crop or settings.scale or settings.photometric):
        return Compose([step for step in own if step["type"] not in LOADERS])
    steps: list[Any] = []
    if model.canvas.fit == "stretch":
        height, width = model.canvas.size
        steps.append({"type": "Resize", "scale": (width, height), "keep_ratio": False})
    if settings.scale:
        steps.append(RandomScale(settings.scale))
    if settings.crop:
        steps.append(
            {"type": "RandomCrop", "crop_size": (settings.crop, settings.crop), "cat_max_ratio": 0.9}
        )
    elif settings.scale:
        steps.append({"type": "RandomCrop", "crop_size": model.canvas.size})
    if settings.horizontal_flip:
        steps.append({"type": "RandomFlip", "prob": 0.5})
    if settings.photometric:
        steps.append({"type": "PhotoMetricDistortion"})
    return Compose([*steps, {"type": "PackSegInputs"}])


def repeats(transforms: Any) -> bool:
    """Whether an image leaves `transforms` the same each time, or mirrored."""
    return all(type(step).__name__ in FIXED for step in transforms.transforms)


class RandomScale:
    """A step of mmcv's pipelines: image and label map resized by a factor drawn from between two."""

    def __init__(self, factors: tuple[float, float]) -> None:
        self._least, self._most = factors

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        from mmcv.transforms import Resize

        factor = float(np.random.uniform(self._least, self._most))  # noqa: NPY002 - seeded by draw, as mmcv's are
        resized: dict[str, Any] = Resize(scale_factor=factor, keep_ratio=True)(results)
        return resized


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
