"""What both sides of the training benchmark are given: one configuration, its weights, and folders of images."""

import json
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.figure import DATA

CONFIGS = Path(__file__).parents[1] / "configs"
CAMVID = DATA / "camvid"


@dataclass(frozen=True)
class Setup:
    """A network and its data; `failures` and `replay` are (images, masks), of which ours draws half of a batch each.

    `classes` and `colours` are the label set's; `grid` is at least as large as every image, so that both sides see them
    at their own size.
    """

    config: str
    weights: str
    label_set: str
    failures: tuple[str, str]
    replay: tuple[str, str]
    grid: int
    batch_size: int

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> "Setup":
        return cls(**json.loads(text))


def drawn_scenes(folder: Path, batch_size: int) -> Setup:
    """The demo's target, a narrow Fast-SCNN, with its own pipeline: resize, crop to 256 x 192, flip."""
    from training.scenes import write_dataset

    write_dataset(folder / "scenes", seed=1, pool=60, s0=100, t0=0)
    pool, s0 = folder / "scenes" / "pool", folder / "scenes" / "s0"
    return Setup(
        config=str(CONFIGS / "mmseg" / "scenes_fastscnn.py"),
        weights=str(CONFIGS / "mmseg" / "weights" / "scenes_fastscnn.safetensors"),
        label_set=str(CONFIGS / "label_sets" / "scenes.yaml"),
        failures=(str(pool / "images"), str(pool / "hidden_masks")),
        replay=(str(s0 / "images"), str(s0 / "masks")),
        grid=256,
        batch_size=batch_size,
    )


def camvid(folder: Path, batch_size: int, crop: tuple[int, int] = (180, 240)) -> Setup:
    """mmsegmentation's Fast-SCNN and its Cityscapes pipeline at a quarter of the size, colours distorted, on CamVid."""
    config, weights = folder / f"camvid_{crop[0]}.py", folder / "camvid.safetensors"
    config.write_text(
        _CAMVID.format(base=_mmseg_configs() / "models" / "fast_scnn.py", crop=crop), encoding="utf-8"
    )
    _random_weights(config, weights)
    for split, listed in (("failures", "pool"), ("replay", "s0")):
        _link(folder / split, (CAMVID / "lists" / f"{listed}.txt").read_text().split())
    return Setup(
        config=str(config),
        weights=str(weights),
        label_set=str(CONFIGS / "label_sets" / "camvid.yaml"),
        failures=(str(folder / "failures" / "images"), str(folder / "failures" / "masks")),
        replay=(str(folder / "replay" / "images"), str(folder / "replay" / "masks")),
        grid=480,
        batch_size=batch_size,
    )


def _link(folder: Path, stems: list[str]) -> None:
    """A folder for mmsegmentation's data set, which reads whole folders."""
    for kind, suffix in (("images", ".jpg"), ("masks", ".png")):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for stem in (Path(s).stem for s in stems):
            link = folder / kind / f"{stem}{suffix}"
            if not link.exists():
                link.symlink_to(CAMVID / kind / f"{stem}{suffix}")


def _mmseg_configs() -> Path:
    """mmsegmentation's own base configurations, which are in its package."""
    spec = find_spec("mmseg")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / ".mim" / "configs" / "_base_"


def _random_weights(config: Path, path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from mad_backend.models.mmseg_model import build_segmentor, read_config

    torch.manual_seed(0)
    module = build_segmentor("camvid", read_config(config))
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)


_CAMVID = """\
_base_ = "{base}"
norm_cfg = dict(type="BN", requires_grad=True, momentum=0.01)
heads = dict(num_classes=11, norm_cfg=norm_cfg)
model = dict(
    data_preprocessor=dict(size={crop}),
    backbone=dict(norm_cfg=norm_cfg),
    decode_head=heads,
    auxiliary_head=[
        dict(
            type="FCNHead", in_channels=channels, channels=32, num_convs=1, num_classes=11, in_index=index,
            norm_cfg=norm_cfg, concat_input=False, align_corners=False,
            loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=0.4),
        )
        for channels, index in ((128, -2), (64, -3))
    ],
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(480, 360), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size={crop}, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
"""
