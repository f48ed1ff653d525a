"""Settings files made from the templates in configs/, with the places of this machine filled in."""

from pathlib import Path
from string import Template

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def write_settings(template: str, target: Path, places: dict[str, object], overrides: str = "") -> Path:
    """Fills `configs/<template>.yaml` and writes it to `target`; `overrides` are YAML lines added at the end."""
    text = Template((CONFIGS / f"{template}.yaml").read_text(encoding="utf-8"))
    target.parent.mkdir(parents=True, exist_ok=True)
    filled = text.substitute({"CONFIGS": CONFIGS, **{name: str(place) for name, place in places.items()}})
    temporary = target.with_suffix(".tmp")
    temporary.write_text(filled + overrides, encoding="utf-8")
    temporary.replace(target)
    return target
