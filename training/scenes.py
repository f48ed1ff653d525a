"""Draws the default data set: outdoor scenes with exact label maps, so that `mad demo` needs no photos.

The benchmark domain is daylight at usual scales and colours. Half of the open world is the same; the other
half shows what the benchmark never does (night, fog, odd colours, upside-down balloons): there models fail.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from training.scene_brush import Brush, finish_surface
from training.scene_objects import DISTRACTORS, DRAWERS
from training.scene_textures import (
    Ground,
    Look,
    RgbImage,
    draw_ground,
    draw_hills,
    draw_sky,
    expose,
    take_photo,
)

LabelMap = npt.NDArray[np.uint8]  # (H, W), ids of CLASS_NAMES

WIDTH, HEIGHT = 256, 192
CLASS_NAMES = ("background", "house", "tree", "car", "person", "boat", "animal", "balloon")
CLASS_COLOURS = ("#000000", "#b5523a", "#2e8b3d", "#2f6fd6", "#e8489a", "#17b3b8", "#f0a72b", "#8e4fd1")
HOUSE, TREE, CAR, PERSON, BOAT, ANIMAL, BALLOON = range(1, 8)

USUAL_HEIGHT = {
    HOUSE: (58, 88),
    TREE: (66, 110),
    CAR: (24, 38),
    PERSON: (48, 76),
    BOAT: (40, 68),
    ANIMAL: (36, 56),
    BALLOON: (46, 78),
}
"""Height in pixels of an object half way between the horizon and the lower edge of a 192 px high scene."""

DEMO_SEED = 1
"""The shipped target was trained on S(0) of this seed; another seed would be another S(0)."""
SEED_STRIDE = 1_000_000
SPLIT_OFFSETS = {"s0": 0, "t0": 100_000, "pool": 200_000}


class Domain(StrEnum):
    """Where a scene is from: `HARD_WORLD` is the unusual part of `OPEN_WORLD`, `OUTSIDE` has no object."""

    BENCHMARK = "benchmark"
    OPEN_WORLD = "open world"
    HARD_WORLD = "hard world"
    OUTSIDE = "outside"


class Oddity(StrEnum):
    """What is unusual about the objects of a hard scene (`Look` is what is unusual about its light)."""

    COLOURS = "odd colours"
    PATTERNS = "patterns"
    TILT = "tilt"
    TINY = "tiny"
    HUGE = "huge"
    OCCLUSION = "occlusion"
    CLUTTER = "clutter"
    PLACE = "place"


@dataclass(frozen=True)
class Scene:
    """`rgb` (H, W, 3) uint8, `label_map` (H, W) uint8 with ids of CLASS_NAMES, `traits`: what is unusual."""

    rgb: RgbImage
    label_map: LabelMap
    traits: tuple[Look | Oddity, ...]


def draw_scene(seed: int, domain: Domain, width: int = WIDTH, height: int = HEIGHT) -> Scene:
    """One scene; equal arguments give equal pixels. An `OPEN_WORLD` seed decides how hard its scene is."""
    rng = np.random.default_rng([seed, list(Domain).index(domain)])
    if domain is Domain.OPEN_WORLD:
        domain = [Domain.BENCHMARK, Domain.HARD_WORLD, Domain.OUTSIDE][
            int(rng.choice(3, p=(0.45, 0.5, 0.05)))
        ]
    traits = choose_traits(rng) if domain is Domain.HARD_WORLD else ()
    grounds = [Ground.MEADOW, Ground.MEADOW, Ground.ROAD, Ground.ROAD, Ground.LAKE]
    if Oddity.PLACE in traits:
        grounds = [Ground.SNOW, Ground.DESERT]
    ground = grounds[int(rng.integers(len(grounds)))]
    horizon = int(height * rng.uniform(0.36, 0.5))

    canvas = draw_sky(rng, height, width)
    draw_hills(rng, canvas, horizon, ground is Ground.SNOW)
    canvas[horizon:] = draw_ground(rng, ground, height - horizon, width)
    rgb = np.clip(canvas, 0, 255).astype(np.uint8)
    label_map = np.zeros((height, width), np.uint8)

    if domain is not Domain.OUTSIDE:
        place_objects(rng, rgb, label_map, horizon, choose_classes(rng, ground, traits), traits)
    place_distractors(rng, rgb, label_map, horizon, traits)
    for trait in traits:
        if isinstance(trait, Look):
            rgb = take_photo(rng, rgb, trait, horizon)
    return Scene(expose(rng, rgb), label_map, traits)


def choose_traits(rng: np.random.Generator) -> tuple[Look | Oddity, ...]:
    """One light condition, one or two oddities, or some of both; at most one of tiny and huge."""
    never = Oddity.TINY if rng.random() < 0.5 else Oddity.HUGE
    looks, oddities = list(Look), [oddity for oddity in Oddity if oddity is not never]
    look_count = int(rng.choice(3, p=(0.3, 0.6, 0.1)))
    oddity_count = int(rng.integers(1, 3)) if look_count < 2 else int(rng.integers(0, 2))
    chosen_looks = [looks[int(k)] for k in rng.choice(len(looks), look_count, replace=False)]
    return (
        *[oddities[int(k)] for k in rng.choice(len(oddities), oddity_count, replace=False)],
        *chosen_looks,
    )


def choose_classes(rng: np.random.Generator, ground: Ground, traits: tuple[Look | Oddity, ...]) -> list[int]:
    """Class ids of the objects to draw. In the benchmark they suit the ground: boats float, cars do not."""
    if Oddity.PLACE in traits:
        usual = [HOUSE, TREE, CAR, PERSON, BOAT, ANIMAL]
    else:
        usual = {
            Ground.LAKE: [BOAT, BOAT, BOAT],
            Ground.ROAD: [CAR, CAR, PERSON, HOUSE, TREE],
        }.get(ground, [HOUSE, HOUSE, TREE, PERSON, ANIMAL, ANIMAL])
    count = int(rng.integers(1, 4)) if ground is Ground.LAKE else int(rng.integers(2, 5))
    if Oddity.CLUTTER in traits or Oddity.OCCLUSION in traits:
        count += 4 if ground is not Ground.LAKE else 2
    classes = [usual[int(k)] for k in rng.integers(0, len(usual), count)]
    in_sky = int(rng.integers(1, 3)) if rng.random() < 0.4 else 0
    return classes + [BALLOON] * in_sky


def place_objects(
    rng: np.random.Generator,
    rgb: RgbImage,
    label_map: LabelMap,
    horizon: int,
    classes: list[int],
    traits: tuple[Look | Oddity, ...],
) -> None:
    """Draws the objects from far to near: nearer ones cover farther ones in `rgb` and in `label_map`."""
    height, width = label_map.shape
    depths = np.sort(rng.uniform(0.12, 0.85, len(classes)))
    slots = (rng.permutation(len(classes)) + rng.uniform(0.25, 0.75, len(classes))) / len(classes)
    if Oddity.OCCLUSION in traits:
        slots = rng.uniform(0.3, 0.7) + (slots - 0.5) * 0.55
    zoom = height / HEIGHT
    zoom *= rng.uniform(0.4, 0.55) if Oddity.TINY in traits else 1.0
    zoom *= rng.uniform(1.7, 2.4) if Oddity.HUGE in traits else 1.0
    for class_id, depth, slot in zip(classes, depths, slots, strict=True):
        size = rng.uniform(*USUAL_HEIGHT[class_id]) * zoom
        if class_id == BALLOON:
            size *= rng.uniform(0.7, 1.25)
            foot_y = max(rng.uniform(0.35, 1.0) * horizon, 0.75 * size)
        else:
            size *= 0.55 + 0.9 * float(depth)
            foot_y = horizon + float(depth) * (height - horizon) + (0.1 * size if class_id == BOAT else 0.0)
            cast_shadow(rgb, (slot * width, foot_y), size)
        angle = rng.uniform(-0.05, 0.05)
        if Oddity.TILT in traits and class_id != HOUSE:
            upside_down = class_id == BALLOON or rng.random() < 0.4
            angle = np.pi + angle if upside_down else rng.choice((-1, 1)) * rng.uniform(0.5, 1.6)
        brush = Brush(
            rgb, (slot * width, foot_y), size, rng, angle, bool(rng.random() < 0.5), Oddity.COLOURS in traits
        )
        DRAWERS[class_id - 1](brush)
        finish_surface(brush, Oddity.PATTERNS in traits)
        label_map[brush.mask > 0] = class_id


def place_distractors(
    rng: np.random.Generator,
    rgb: RgbImage,
    label_map: LabelMap,
    horizon: int,
    traits: tuple[Look | Oddity, ...],
) -> None:
    """Rocks, fences, signs and bales in front of the objects; what they cover becomes background."""
    height, width = label_map.shape
    crowded = Oddity.CLUTTER in traits or Oddity.OCCLUSION in traits
    count = int(rng.integers(4, 8)) if crowded else int(rng.integers(0, 3))
    for depth in np.sort(rng.uniform(0.3, 1.0, count)):
        foot = (rng.uniform(0, 1) * width, horizon + float(depth) * (height - horizon))
        size = rng.uniform(14, 30) * (0.5 + float(depth)) * (1.5 if Oddity.OCCLUSION in traits else 1.0)
        brush = Brush(rgb, foot, size, rng, mirrored=bool(rng.random() < 0.5))
        cast_shadow(rgb, foot, size)
        DISTRACTORS[int(rng.integers(len(DISTRACTORS)))](brush)
        finish_surface(brush, patterned=False)
        label_map[brush.mask > 0] = 0


def cast_shadow(rgb: RgbImage, foot: tuple[float, float], size: float) -> None:
    """A soft dark patch on the ground under an object."""
    shadow = np.zeros(rgb.shape[:2], np.float32)
    centre = (int(foot[0] + 0.15 * size), int(foot[1]))
    cv2.ellipse(shadow, centre, (int(0.5 * size) + 2, int(0.07 * size) + 2), 0, 0, 360, (0.42,), -1)
    soft = cv2.GaussianBlur(shadow, (0, 0), 1.8)[..., None]
    rgb[:] = (rgb * (1 - soft)).astype(np.uint8)


def write_dataset(
    root: Path,
    seed: int,
    pool: int = 400,
    s0: int = 160,
    t0: int = 80,
    progress: Callable[[int, int], None] | None = None,
    hard: float | None = None,
) -> int:
    """Draws what is missing under `root` and returns the number of scenes drawn, 0 on a second call.

    `s0` and `t0` get images/ and masks/ from the benchmark; `pool` gets images/ from the open world and
    hidden_masks/, which only simulated raters and annotators may read. Images are JPEG, masks palette PNGs
    of class ids. A `root` drawn with another seed: ValueError. `progress(done, total)` is called after each.
    `hard`: the share of the pool's scenes that are of the hard world, the others being of the benchmark's.
    """
    check_seed(root, seed)
    total, done, drawn = pool + s0 + t0, 0, 0
    for split, count, domain in (
        ("s0", s0, Domain.BENCHMARK),
        ("t0", t0, Domain.BENCHMARK),
        ("pool", pool, Domain.OPEN_WORLD),
    ):
        images, masks = (
            root / split / "images",
            root / split / ("hidden_masks" if split == "pool" else "masks"),
        )
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image_path, mask_path = images / f"{split}_{index:05d}.jpg", masks / f"{split}_{index:05d}.png"
            if not (image_path.exists() and mask_path.exists()):
                number = seed * SEED_STRIDE + SPLIT_OFFSETS[split] + index
                save_scene(draw_scene(number, _part_of(domain, number, hard)), image_path, mask_path)
                drawn += 1
            done += 1
            if progress is not None:
                progress(done, total)
    return drawn


def _part_of(domain: Domain, number: int, hard: float | None) -> Domain:
    """Where the scene `number` of `domain` is from, if `hard` says how much of the open world is hard."""
    if domain is not Domain.OPEN_WORLD or hard is None:
        return domain
    is_hard = np.random.default_rng([number, len(Domain)]).random() < hard
    return Domain.HARD_WORLD if is_hard else Domain.BENCHMARK


def check_seed(root: Path, seed: int) -> None:
    """Notes the seed in `root`/seed.txt; ValueError if another one is noted there."""
    note = root / "seed.txt"
    if note.exists():
        noted = note.read_text().strip()
        if noted != str(seed):
            raise ValueError(f"{root} holds scenes of seed {noted}, asked for {seed}; use another folder")
        return
    root.mkdir(parents=True, exist_ok=True)
    part = note.with_name(".seed.txt.part")
    part.write_text(f"{seed}\n")
    part.replace(note)


def save_scene(scene: Scene, image_path: Path, mask_path: Path) -> None:
    """Writes JPEG (quality 95, full colour resolution) and palette PNG, each under a temporary name first."""
    height, width = scene.label_map.shape
    mask = Image.frombytes("P", (width, height), scene.label_map.tobytes())
    mask.putpalette([channel for colour in CLASS_COLOURS for channel in bytes.fromhex(colour[1:])])
    mask_part, image_part = (p.with_name(f".{p.name}.part") for p in (mask_path, image_path))
    mask.save(mask_part, format="PNG")
    mask_part.replace(mask_path)
    Image.fromarray(scene.rgb).save(image_part, format="JPEG", quality=95, subsampling=0)
    image_part.replace(image_path)
