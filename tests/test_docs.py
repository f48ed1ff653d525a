"""The settings that the documentation of the ML backend shows are settings."""

import re
from pathlib import Path

import yaml

from mad_backend.settings import ServeSettings
from mad_backend.settings_file import load_settings

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
    assert load_settings(ROOT / "configs" / "mad.yaml").serve == ServeSettings()
