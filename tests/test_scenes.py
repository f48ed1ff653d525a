"""The drawn data set: deterministic, complete, safe to write twice."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from training.scenes import CLASS_COLOURS, CLASS_NAMES, Domain, draw_scene, write_dataset

LABEL_SET = Path(__file__).parents[1] / "configs" / "label_sets" / "scenes.yaml"


def file_states(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("domain", Domain)
def test_equal_seeds_draw_equal_scenes(domain: Domain) -> None:
    first, second, other = draw_scene(3, domain), draw_scene(3, domain), draw_scene(4, domain)
    assert first.traits == second.traits
    np.testing.assert_array_equal(first.rgb, second.rgb)
    np.testing.assert_array_equal(first.label_map, second.label_map)
    assert (first.rgb != other.rgb).any()


@pytest.mark.parametrize("domain", [Domain.BENCHMARK, Domain.OPEN_WORLD])
def test_label_maps_hold_every_class_and_nothing_else(domain: Domain) -> None:
    scenes = [draw_scene(seed, domain) for seed in range(40)]
    assert {(s.rgb.shape, s.rgb.dtype, s.label_map.shape, s.label_map.dtype) for s in scenes} == {
        ((192, 256, 3), np.dtype(np.uint8), (192, 256), np.dtype(np.uint8))
    }
    found = set().union(*(np.unique(s.label_map).tolist() for s in scenes))
    assert found == set(range(len(CLASS_NAMES)))


def test_a_larger_scene_has_the_asked_size() -> None:
    scene = draw_scene(0, Domain.BENCHMARK, width=320, height=240)
    assert scene.rgb.shape == (240, 320, 3)
    assert scene.label_map.shape == (240, 320)


def test_the_open_world_is_usual_unusual_or_empty() -> None:
    scenes = [draw_scene(seed, Domain.OPEN_WORLD) for seed in range(200)]
    unusual = sum(bool(s.traits) for s in scenes)
    empty = sum(not s.label_map.any() for s in scenes)
    assert 70 <= unusual <= 130
    assert 2 <= empty <= 25
    assert not any(draw_scene(seed, Domain.BENCHMARK).traits for seed in range(20))


def test_hard_scenes_have_colours_the_benchmark_never_has() -> None:
    def spread(domain: Domain) -> float:
        return float(
            np.std([draw_scene(seed, domain).rgb.mean(axis=(0, 1)) for seed in range(40)], axis=0).mean()
        )

    assert spread(Domain.HARD_WORLD) > 1.5 * spread(Domain.BENCHMARK)


def test_outside_scenes_have_no_object() -> None:
    assert not any(draw_scene(seed, Domain.OUTSIDE).label_map.any() for seed in range(10))


def test_masks_on_disk_are_the_drawn_label_maps_under_the_label_set_palette(tmp_path: Path) -> None:
    write_dataset(tmp_path, seed=5, pool=3, s0=2, t0=1)
    with Image.open(tmp_path / "pool" / "hidden_masks" / "pool_00002.png") as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[:24] == [c for colour in CLASS_COLOURS for c in bytes.fromhex(colour[1:])]  # type: ignore[index]
        np.testing.assert_array_equal(np.asarray(mask), draw_scene(5_200_002, Domain.OPEN_WORLD).label_map)


def test_a_second_write_touches_nothing_and_draws_only_what_was_added(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert write_dataset(tmp_path, seed=5, pool=3, s0=2, t0=1, progress=lambda d, t: seen.append((d, t))) == 6
    assert seen == [(k, 6) for k in range(1, 7)]
    before = file_states(tmp_path)
    assert write_dataset(tmp_path, seed=5, pool=3, s0=2, t0=1) == 0
    assert file_states(tmp_path) == before
    assert write_dataset(tmp_path, seed=5, pool=4, s0=2, t0=1) == 1


def test_a_killed_write_is_finished_by_the_next(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    write_dataset(whole, seed=5, pool=2, s0=1, t0=1)
    write_dataset(killed, seed=5, pool=2, s0=1, t0=1)
    image = killed / "pool" / "images" / "pool_00001.jpg"
    image.with_name(f".{image.name}.part").write_bytes(image.read_bytes()[:100])
    image.unlink()
    assert write_dataset(killed, seed=5, pool=2, s0=1, t0=1) == 1
    relative = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (whole, killed)
    ]
    assert relative[0] == relative[1]


def test_a_folder_of_another_seed_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, seed=5, pool=1, s0=0, t0=0)
    with pytest.raises(ValueError, match="seed 5, asked for 6"):
        write_dataset(tmp_path, seed=6, pool=1, s0=0, t0=0)


def test_the_label_set_file_names_the_same_classes_and_colours() -> None:
    label_set = yaml.safe_load(LABEL_SET.read_text())
    assert tuple(c["name"] for c in label_set["classes"]) == CLASS_NAMES
    assert tuple(c["color"] for c in label_set["classes"]) == CLASS_COLOURS


def test_a_pool_shows_as_many_hard_scenes_as_asked_for_and_is_the_benchmark_besides(tmp_path: Path) -> None:
    easy, hard, mixed = (tmp_path / name for name in ("easy", "hard", "mixed"))
    for root, share in ((easy, 0.0), (hard, 1.0), (mixed, 0.3)):
        write_dataset(root, seed=5, pool=20, s0=0, t0=0, hard=share)

    def pixels(root: Path, index: int) -> bytes:
        return (root / "pool" / "images" / f"pool_{index:05d}.jpg").read_bytes()

    from_hard = [pixels(mixed, i) == pixels(hard, i) for i in range(20)]
    assert [pixels(mixed, i) == pixels(easy, i) for i in range(20)] == [not h for h in from_hard]
    assert 2 <= sum(from_hard) <= 12
