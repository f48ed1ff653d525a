"""Images are dealt out once, W is nobody's, and what is under test is not learnt under any name."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from mad_backend.errors import SettingsError, TrainingError
from tests.training.conftest import write_config
from training.simulation import experiments
from training.simulation.experiments import experiment_settings, prepare_experiment
from training.simulation.quarantine import left_out, look_alikes
from training.simulation.world import World


def open_world(folder: Path, data: Path, seed: int = 0, **overrides: object) -> World:
    return World.open_for(
        write_config(folder, data, overrides), folder / f"seed-{seed}", folder / "cache", seed
    )


SPLIT = {"s0": [], "t0": [], "simulation": {"split": {"s0": 0.25, "t0": 0.25}, "open_share": 0.5}}


def test_a_split_deals_out_every_image_once_and_under_every_seed_alike(tmp_path: Path, scenes: Path) -> None:
    worlds = [open_world(tmp_path, scenes, seed, **SPLIT) for seed in (0, 1)]
    parts = [
        ([i.image.image_id for i in w.s0], [i.image.image_id for i in w.t0], sorted(w.pool)) for w in worlds
    ]
    assert parts[0] == parts[1]
    assert [len(part) for part in parts[0]] == [9, 9, 18]
    assert len({i for part in parts[0] for i in part}) == 36
    assert worlds[0].open_images != worlds[1].open_images
    assert len(worlds[0].open_images) == 9
    assert set(worlds[0].open_images) < set(worlds[0].pool)


def test_a_project_needs_s0_and_t0_or_a_split(tmp_path: Path, scenes: Path) -> None:
    for wrong in ({"s0": [], "t0": []}, {"simulation": SPLIT["simulation"]}):
        with pytest.raises(SettingsError, match=r"wanted s0 and t0, or simulation\.split"):
            open_world(tmp_path, scenes, **wrong)


def test_what_is_under_test_is_not_learnt_under_any_name(tmp_path: Path, scenes: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    pool, s0 = data / "pool" / "images", data / "s0" / "images"
    hidden, other = (f"pool/{p.stem}" for p in sorted(pool.glob("*.jpg"))[:2])
    copy, smaller = (sorted(s0.glob("*.jpg"))[n] for n in (0, 1))
    shutil.copyfile(pool / f"{hidden.partition('/')[2]}.jpg", copy)
    with Image.open(pool / f"{hidden.partition('/')[2]}.jpg") as image:
        size = image.size
        image.resize((size[0] * 3 // 4, size[1] * 3 // 4)).resize(size).save(smaller, quality=80)
    world = open_world(tmp_path, data)
    trained = [*(i.image for i in world.s0), world.pool[other]]
    out = left_out(world, [hidden], trained)
    assert {f"s0/{copy.stem}", f"s0/{smaller.stem}"} <= out
    assert other not in out
    with pytest.raises(TrainingError, match=hidden):
        left_out(world, [hidden], [*trained, world.pool[hidden]])
    assert hidden not in look_alikes(world, [hidden])


def test_experiment_d_draws_its_own_images_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "SCENES", 3)
    data, told = tmp_path / "data", Console(quiet=True)
    world = World.open_for(experiment_settings("d", data, tmp_path), tmp_path / "own", tmp_path / "cache", 0)
    prepare_experiment("d", world, data, None, told)
    assert len(world.pool) == 3
    assert {len(world.s0), len(world.t0)} == {160, 80}
    drawn = {path: path.stat().st_mtime_ns for path in data.rglob("*.png")}
    prepare_experiment("d", world, data, None, told)
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*.png")} == drawn


def test_a_trial_is_known_by_what_it_is_made_of_and_not_by_where_that_lies(
    tmp_path: Path, scenes: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(scenes, elsewhere)
    here, there = open_world(tmp_path / "a", scenes), open_world(tmp_path / "b", elsewhere)
    assert here.fingerprint("mad", 0) == there.fingerprint("mad", 0)
    assert here.fingerprint("mad", 0) != here.fingerprint("mad", 1)
    assert here.fingerprint("mad", 0) != here.fingerprint("random", 0)
    more = open_world(tmp_path / "c", scenes, rating={"n4": 3})
    assert here.fingerprint("mad", 0) != more.fingerprint("mad", 0)
    next((elsewhere / "s0" / "images").iterdir()).unlink()
    fewer = open_world(tmp_path / "d", elsewhere)
    assert here.fingerprint("mad", 0) != fewer.fingerprint("mad", 0)
