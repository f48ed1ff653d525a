"""Trains the three small mmsegmentation models that `mad demo` ships: one target, two competing models.

The target has seen the benchmark only, with weak augmentation, so that it fails in the open world. The
competing models play somebody else's models that have seen more: two fifths of their training scenes are
open-world scenes, of other seeds than any scene of the demo, with colour augmentation. No model has seen a
scene of the demo's pool or of T(0); the target has seen S(0).

    python -m training.demo_models --out configs/mmseg/weights
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules
from PIL import Image
from safetensors.torch import load_file, save_file

from mad_backend.models.torchvision_operators import define_missing_operators
from training.scenes import CLASS_COLOURS, CLASS_NAMES, DEMO_SEED, write_dataset

CONFIGS = Path(__file__).parents[1] / "configs" / "mmseg"


@dataclass(frozen=True)
class Recipe:
    """What one model is trained on and for how long; `seed` draws its scenes and starts its weights."""

    seed: int
    benchmark_scenes: int
    open_world_scenes: int
    iterations: int
    learning_rate: float
    batch: int = 8


RECIPES = {
    "fastscnn": Recipe(
        seed=101, benchmark_scenes=1000, open_world_scenes=0, iterations=1600, learning_rate=2e-3
    ),
    "segformer": Recipe(
        seed=202, benchmark_scenes=800, open_world_scenes=500, iterations=1500, learning_rate=2e-3
    ),
    "fpn": Recipe(seed=303, benchmark_scenes=700, open_world_scenes=500, iterations=1400, learning_rate=2e-3),
}
TARGET = "fastscnn"


def train_model(name: str, work: Path, iterations: int | None) -> torch.nn.Module:
    """Trains configs/mmseg/scenes_`name`.py from random weights with AdamW; the network in eval mode."""
    recipe = RECIPES[name]
    config = Config.fromfile(CONFIGS / f"scenes_{name}.py")
    register_all_modules()
    runner = Runner(
        model=config.model,
        work_dir=str(work / "runs" / name),
        train_dataloader={
            "batch_size": recipe.batch,
            "num_workers": 1,
            "persistent_workers": True,
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
            "dataset": {
                "type": "ConcatDataset",
                "datasets": training_folders(name, work, config.train_pipeline),
            },
        },
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": iterations or recipe.iterations},
        optim_wrapper={
            "type": "OptimWrapper",
            "optimizer": {"type": "AdamW", "lr": recipe.learning_rate, "weight_decay": 0.01},
            "clip_grad": {"max_norm": 1.0},
        },
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 0.05, "begin": 0, "end": 50, "by_epoch": False},
            {"type": "PolyLR", "power": 0.9, "eta_min": 1e-5, "begin": 50, "by_epoch": False},
        ],
        default_hooks={"logger": {"type": "LoggerHook", "interval": 100}, "checkpoint": None},
        log_processor={"by_epoch": False, "window_size": 50},
        randomness={"seed": recipe.seed},
        default_scope="mmseg",
        experiment_name=name,
    )
    model: torch.nn.Module = runner.train()
    return model.eval()


def training_folders(name: str, work: Path, pipeline: Sequence[object]) -> list[dict[str, object]]:
    """Draws the scenes that model `name` is trained on; one mmseg dataset config for each folder of them."""
    recipe, root = RECIPES[name], work / f"scenes_{RECIPES[name].seed}"
    write_dataset(root, recipe.seed, pool=recipe.open_world_scenes, s0=recipe.benchmark_scenes, t0=0)
    folders = [(root / "s0", "masks")]
    if recipe.open_world_scenes:
        folders.append((root / "pool", "hidden_masks"))
    if name == TARGET:
        folders.append((demo_scenes(work) / "s0", "masks"))
    return [
        {
            "type": "BaseSegDataset",
            "data_root": str(folder),
            "data_prefix": {"img_path": "images", "seg_map_path": masks},
            "img_suffix": ".jpg",
            "seg_map_suffix": ".png",
            "metainfo": {
                "classes": CLASS_NAMES,
                "palette": [list(bytes.fromhex(c[1:])) for c in CLASS_COLOURS],
            },
            "reduce_zero_label": False,
            "pipeline": pipeline,
        }
        for folder, masks in folders
    ]


def demo_scenes(work: Path) -> Path:
    """The demo's own data set at its usual size, drawn if missing."""
    root = work / f"scenes_{DEMO_SEED}"
    write_dataset(root, DEMO_SEED)
    return root


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """All tensors of the state dict, floating ones as float16; `load_state_dict` casts them back."""
    tensors = {
        key: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for key, value in model.state_dict().items()
    }
    part = path.with_name(f".{path.name}.part")
    save_file(tensors, part, metadata={"classes": json.dumps(CLASS_NAMES)})
    part.chmod(0o644)
    part.replace(path)


def load_model(name: str, weights: Path) -> torch.nn.Module:
    """The network of configs/mmseg/scenes_`name`.py with weights from a safetensors file, in eval mode."""
    register_all_modules()
    model: torch.nn.Module = MODELS.build(Config.fromfile(CONFIGS / f"scenes_{name}.py").model)
    model.load_state_dict(load_file(weights), strict=True)
    return model.eval()


def confusion_matrices(
    model: torch.nn.Module, images: Path, masks: Path, batch: int = 8
) -> npt.NDArray[np.int64]:
    """(N, C, C) int64, rows truth, columns prediction, one for each image, in the order of names."""
    paths, classes, matrices = sorted(images.glob("*.jpg")), len(CLASS_NAMES), []
    for start in range(0, len(paths), batch):
        chunk = paths[start : start + batch]
        inputs = [torch.from_numpy(load_bgr(path).transpose(2, 0, 1).copy()) for path in chunk]
        with torch.inference_mode():
            data = model.data_preprocessor({"inputs": inputs}, training=False)  # type: ignore[operator]
            meta = [{"img_shape": tuple(data["inputs"].shape[2:])}] * len(chunk)
            logits = model.encode_decode(data["inputs"], meta)  # type: ignore[operator]
        for path, predicted in zip(chunk, logits.max(1)[1].numpy(), strict=True):
            truth = load_class_ids(masks / f"{path.stem}.png")
            counts = np.bincount(truth.ravel() * classes + predicted.ravel(), minlength=classes**2)
            matrices.append(counts.reshape(classes, classes))
    return np.stack(matrices)


def load_bgr(path: Path) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 in the channel order that mmsegmentation's preprocessor expects."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.uint8)[..., ::-1]


def load_class_ids(path: Path) -> npt.NDArray[np.int64]:
    """The class ids of a palette PNG, (H, W)."""
    with Image.open(path) as image:
        return np.asarray(image, np.int64)


def mean_iou(confusion: npt.NDArray[np.int64]) -> float:
    """Mean over the classes present in truth or prediction of one (C, C) confusion matrix; in [0, 1]."""
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    return float((hit[union > 0] / union[union > 0]).mean())


def report(name: str, model: torch.nn.Module, work: Path) -> None:
    """Prints how a model does on T(0) and on the pool."""
    root = demo_scenes(work)
    benchmark = confusion_matrices(model, root / "t0" / "images", root / "t0" / "masks")
    pool = confusion_matrices(model, root / "pool" / "images", root / "pool" / "hidden_masks")
    worst = np.mean(sorted(mean_iou(matrix) for matrix in pool)[:70])
    sys.stdout.write(
        f"{name}: dataset mIoU {mean_iou(benchmark.sum(0)):.3f} on T(0), {mean_iou(pool.sum(0)):.3f} on the"
        f" pool; mean image mIoU of its 70 worst pool images {worst:.3f}\n"
    )


def main() -> None:
    """Trains the models named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=CONFIGS / "weights", help="folder of the safetensors files"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/demo_models"), help="folder of scenes and logs"
    )
    parser.add_argument("--only", choices=sorted(RECIPES), help="train this model, leave the others")
    parser.add_argument("--iterations", type=int, help="instead of each model's own number")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    arguments = parser.parse_args()
    define_missing_operators()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = [arguments.only] if arguments.only else list(RECIPES)
    for name in names:
        weights = arguments.out / f"scenes_{name}.safetensors"
        save_weights(train_model(name, arguments.work, arguments.iterations), weights)
        report(name, load_model(name, weights), arguments.work)


if __name__ == "__main__":
    main()
