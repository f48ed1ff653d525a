"""The settings that the documentation shows are settings."""

import re
from pathlib import Path

import yaml

from mad_backend.settings import ServeSettings, Settings, SimulationSettings
from mad_backend.settings_file import load_settings
from training.simulation.strategies import Strategy

ROOT = Path(__file__).parents[1]


def test_the_page_on_the_ml_backend_names_every_setting_with_its_default_or_an_example() -> None:
    text = (ROOT / "docs" / "ml-backend.md").read_text(encoding="utf-8")
    given = [yaml.safe_load(block)["serve"] for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    merged = {key: value for block in given for key, value in block.items()}
    assert merged.keys() == ServeSettings.model_fields.keys() - {"public_url"}
    read = ServeSettings.model_validate(merged)
    assert read.images.hosts == ("images.example.com", "*.example.org")
    plain = read.model_copy(update={"labels": {}, "images": ServeSettings().images})
    assert plain == ServeSettings()


def test_the_example_settings_say_what_the_defaults_are() -> None:
    read = load_settings(ROOT / "configs" / "mad.yaml")
    for name in ("serve", "test_set", "costs", "stop", "simulation"):
        assert getattr(read, name) == Settings.model_fields[name].default, name


def test_the_page_on_simulations_shows_settings_that_are_read_and_every_strategy() -> None:
    text = (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    read = SimulationSettings.model_validate(yaml.safe_load(block)["simulation"])
    assert read.split
    assert read.oracle.model_fields_set == set(type(read.oracle).model_fields)
    for strategy in Strategy:
        assert f"| `{strategy}` |" in text
