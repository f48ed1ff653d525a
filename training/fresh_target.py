"""Fresh models for experiments: a trained backbone with a new head, trained on S(0) alone."""

import shutil
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mad_backend.errors import TrainingError
from mad_backend.models.registry import load_model
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import ModelSettings, Recipe, TrainingSettings
from training.finetune import labelled_samples
from training.finetuning.dev import DevSet
from training.finetuning.plan import FailedRun, RunPlan
from training.finetuning.run import load_best, train
from training.fresh_networks import new_decoder, new_head
from training.project import Project

HEAD = TrainingSettings(
    recipe=Recipe.PAPER, learning_rates=(5e-3,), epochs=8, batch_size=4, freeze_batch_norm=True
)
"""A new head needs larger steps than fine-tuning. The epoch is chosen on the dev part of T(0)."""
DECODER = TrainingSettings(
    recipe=Recipe.PAPER,
    optimizer="adamw",
    learning_rates=(1e-3,),
    backbone_rate=0.2,
    weight_decay=1e-2,
    warmup=20,
    epochs=7,
    batch_size=6,
    freeze_batch_norm=True,
    scale=(0.6, 1.5),
    crop=320,
    photometric=True,
    loss_stride=4,
)
"""Of a whole decoder, on some hundred images: 300 steps over random crops."""


def ensure_fresh_target(project: Project, backbone: Path, console: Console) -> None:
    """Experiment C's target: a VOC-trained DeepLabV3-MobileNetV2 of transformers with a new head."""
    target = project.settings.models.target
    _ensure(
        project,
        target,
        lambda start: new_head(backbone, start, project.labels.names, project.settings.seed),
        HEAD,
        console,
    )


def ensure_fresh_rivals(project: Project, backbone: Path, console: Console) -> None:
    """Experiment B's target and its rival: the same ImageNet backbone under two decoders, with two seeds."""
    models = project.settings.models
    for seed, (settings, decoder) in enumerate(
        [(models.target, "added"), *((rival, "joined") for rival in models.competing.values())]
    ):
        _ensure(
            project,
            settings,
            lambda start, decoder=decoder, seed=seed: new_decoder(  # type: ignore[misc]
                decoder, backbone, start, len(project.labels), seed
            ),
            DECODER,
            console,
        )


def _ensure(
    project: Project,
    settings: ModelSettings,
    make_start: Callable[[Path], None],
    recipe: TrainingSettings,
    console: Console,
) -> None:
    """Trains what `settings` name as their path, unless it is there; goes on after an interruption."""
    path = settings.required_path
    if (path / "model.safetensors").exists():
        return
    start = path.with_name(f"{path.name}-start")
    make_start(start)
    model = load_model("fresh", settings.model_copy(update={"path": start}), project.labels, project.grid)
    assert isinstance(model, TorchModel)
    samples = labelled_samples(project, project.s0)
    dev = labelled_samples(project, project.t0_dev)
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"training a fresh {path.name} on S(0)", total=None)
        plan = RunPlan(
            samples,
            samples,
            project.grid,
            recipe,
            project.settings.seed,
            DevSet(dev, (), project.grid, len(project.labels), project.counted_classes).score,
            lambda told: bar.update(task, completed=told.step, total=told.steps),
        )
        result = train(model, recipe.learning_rates[0], plan, path.with_name(f"{path.name}-run"))
    if isinstance(result, FailedRun):
        raise TrainingError(f"training a fresh {path.name} failed: {result.stopped}")
    load_best(model, result)
    console.print(
        f"fresh {path.name}: epoch {result.best.epoch}, mIoU {result.best.dev:.4f} on the dev part of T(0)"
    )
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save(temporary)
    temporary.rename(path)
