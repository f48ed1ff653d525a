"""A fresh target for street scenes: a VOC-trained DeepLabV3-MobileNetV2 with a new head, trained on S(0) alone."""

import shutil
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mad_backend.models.hf_model import HfModel
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.settings import TrainingSettings
from training.dataset import Sample
from training.evaluate import measure_on
from training.project import Project
from training.trainer import RunPlan, load_best, train

RECIPE = TrainingSettings(
    learning_rates=(5e-3,), epochs=8, batch_size=4, freeze_batch_norm=True, horizontal_flip=True
)
"""A new head needs larger steps than fine-tuning. The epoch is chosen on the dev part of T(0)."""


def ensure_fresh_target(project: Project, backbone: Path, console: Console) -> None:
    """Trains what settings name as the target's path, unless it is there; goes on after an interruption."""
    target = project.settings.models.target
    path = target.required_path
    if (path / "model.safetensors").exists():
        return
    start = path.with_name(f"{path.name}-start")
    new_head(backbone, start, project.labels.names, project.settings.seed)
    model = HfModel("fresh", target.model_copy(update={"path": start}), project.labels, project.grid)
    samples = [Sample(i.image.image_id, project.local_file(i.image), i.mask) for i in project.s0]
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training a fresh target on S(0)", total=None)
        plan = RunPlan(
            samples,
            samples,
            project.grid,
            RECIPE,
            project.settings.seed,
            measure_on(
                project.t0_dev, project.reader, project.grid, len(project.labels), project.counted_classes
            ),
            lambda _, step, steps: bar.update(task, completed=step, total=steps),
        )
        result = train(model, RECIPE.learning_rates[0], plan, path.with_name("fresh-run"))
    load_best(model, result)
    console.print(
        f"fresh target: epoch {result.best_epoch}, mIoU {result.best_miou:.4f} on the dev part of T(0)"
    )
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save(temporary)
    temporary.rename(path)


def new_head(backbone: Path, folder: Path, class_names: tuple[str, ...], seed: int) -> None:
    """Writes a copy of the network in `backbone` whose classifier has one fresh output per class name."""
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
