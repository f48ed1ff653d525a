"""The places of the drawn scenes: sky, hills and ground before the objects, light and camera after them."""

from enum import StrEnum
from typing import assert_never

import cv2
import numpy as np
import numpy.typing as npt

RgbImage = npt.NDArray[np.uint8]  # (H, W, 3)
Grid = npt.NDArray[np.float32]  # (H, W)
Colour = tuple[int, int, int]


class Ground(StrEnum):
    """What the lower part of a scene shows; the last two never occur in the benchmark."""

    MEADOW = "meadow"
    ROAD = "road"
    LAKE = "lake"
    SNOW = "snow"
    DESERT = "desert"


class Look(StrEnum):
    """Light and camera conditions that only the open world has."""

    NIGHT = "night"
    DUSK = "dusk"
    FOG = "fog"
    COLOUR_CAST = "colour cast"
    FADED = "faded"
    BLUR = "blur"
    NOISE = "noise"


def noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 3) -> Grid:
    """Smooth value noise, (height, width) float32, about [-1, 1]; `cell` is the coarsest grain in pixels."""
    total = np.zeros((height, width), np.float32)
    weight, norm = 1.0, 0.0
    for _ in range(octaves):
        rows, columns = int(height / cell) + 3, int(width / cell) + 3
        coarse = rng.random((rows, columns), dtype=np.float32) * 2 - 1
        zoomed = cv2.resize(coarse, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        top, left = (
            rng.integers(0, max(1, zoomed.shape[0] - height)),
            rng.integers(0, max(1, zoomed.shape[1] - width)),
        )
        total += weight * zoomed[top : top + height, left : left + width]
        norm += weight
        weight, cell = weight * 0.55, max(cell / 2, 1.0)
    return np.asarray(total / norm, np.float32)


def channels(*values: float) -> npt.NDArray[np.float32]:
    """(3,) float32, one value each for red, green and blue."""
    return np.array(values, np.float32)


def gradient(top: Colour, bottom: Colour, height: int, width: int) -> npt.NDArray[np.float32]:
    """(height, width, 3) float32 in [0, 255], `top` fading into `bottom`."""
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    column = channels(*top) * (1 - share) + channels(*bottom) * share
    return np.ascontiguousarray(np.broadcast_to(column, (height, width, 3)), np.float32)


def jitter(rng: np.random.Generator, colour: Colour, spread: int) -> Colour:
    """`colour` with each channel moved by up to `spread`, kept in [0, 255]."""
    red, green, blue = (int(np.clip(c + rng.integers(-spread, spread + 1), 0, 255)) for c in colour)
    return red, green, blue


def draw_sky(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """A daylight sky with soft clouds, (height, width, 3) float32 in [0, 255]."""
    top = jitter(rng, (78, 138, 205), 22)
    sky = gradient(top, jitter(rng, (196, 219, 236), 12), height, width)
    cover = np.clip(noise(rng, height, width, 70) * 2.2 + rng.uniform(-0.7, 0.4), 0, 1)[..., None]
    lit = 246 + 8 * noise(rng, height, width, 16, 2)[..., None]
    return np.asarray(sky * (1 - 0.85 * cover) + lit * 0.85 * cover, np.float32)


def draw_hills(rng: np.random.Generator, image: npt.NDArray[np.float32], horizon: int, snowy: bool) -> None:
    """One to three ridges behind the horizon, farther ones paler; drawn into `image` (H, W, 3) float32."""
    height, width = image.shape[:2]
    ridges = int(rng.integers(1, 4))
    base = channels(*jitter(rng, (176, 186, 198) if snowy else (74, 104, 66), 18))
    haze = channels(176, 197, 214)
    grain = noise(rng, height, width, 9, 2)
    rows = np.arange(height)[:, None]
    for ridge in range(ridges):
        distance = 1 - (ridge + 1) / (ridges + 1)
        rise = (8 + 26 * distance) * (1 + 0.6 * rng.random())
        wave = noise(rng, 1, width, 90 - 20 * ridge, 3)[0]
        crest = horizon - np.clip(rise * (0.55 + wave), 1, None)
        inside = (rows >= crest[None, :]) & (rows < horizon + 2)
        tone = base * (1 - 0.75 * distance) + haze * 0.75 * distance
        image[inside] = tone + 13 * (1 - distance) * grain[inside][:, None]


def draw_ground(rng: np.random.Generator, ground: Ground, height: int, width: int) -> npt.NDArray[np.float32]:
    """The strip below the horizon, (height, width, 3) float32; the grain grows towards the viewer."""
    match ground:
        case Ground.MEADOW | Ground.ROAD:
            far, near, grain = (134, 160, 88), (82, 124, 52), 17.0
        case Ground.LAKE:
            far, near, grain = (140, 178, 204), (52, 104, 142), 9.0
        case Ground.SNOW:
            far, near, grain = (226, 232, 240), (206, 216, 230), 9.0
        case Ground.DESERT:
            far, near, grain = (222, 196, 148), (198, 158, 102), 14.0
        case _:
            assert_never(ground)
    strip = gradient(jitter(rng, far, 14), jitter(rng, near, 14), height, width)
    fine, coarse = noise(rng, height, width, 3, 1), noise(rng, height, width, 36, 3)
    depth = np.linspace(0.35, 1.3, height, dtype=np.float32)[:, None]
    strip += (grain * depth * (0.7 * fine + 1.1 * coarse))[..., None]
    if ground is Ground.LAKE:
        strip += ripples(rng, height, width)[..., None]
    if ground is Ground.ROAD:
        pave(rng, strip)
    return strip


def ripples(rng: np.random.Generator, height: int, width: int) -> Grid:
    """Flat bright and dark wavelets, (height, width) float32 about [-30, 30], wider towards the viewer."""
    flat = cv2.resize(
        noise(rng, height, max(width // 8, 8), 2, 1), (width, height), interpolation=cv2.INTER_CUBIC
    )
    depth = np.linspace(0.4, 1.2, height, dtype=np.float32)[:, None]
    return np.asarray(26 * flat * depth, np.float32)


def pave(rng: np.random.Generator, strip: npt.NDArray[np.float32]) -> None:
    """A road that narrows to a vanishing point, with a dashed middle line, drawn into the ground strip."""
    height, width = strip.shape[:2]
    vanish, middle = rng.uniform(0.25, 0.75) * width, rng.uniform(0.3, 0.7) * width
    half = rng.uniform(0.28, 0.5) * width
    corners = np.array(
        [[vanish - 3, 0], [vanish + 3, 0], [middle + half, height], [middle - half, height]], np.int32
    )
    asphalt = np.zeros((height, width), np.uint8)
    cv2.fillPoly(asphalt, [corners], 255)
    tone = float(rng.uniform(92, 124)) + 12 * noise(rng, height, width, 2, 1)
    strip[asphalt > 0] = tone[asphalt > 0][:, None] * channels(1.0, 1.0, 1.03)
    for step in np.arange(0.08, 1.0, 0.16):
        ends = [vanish + (middle - vanish) * s for s in (step, step + 0.07)]
        start, stop = (int(ends[0]), int(step * height)), (int(ends[1]), int((step + 0.07) * height))
        cv2.line(strip, start, stop, (225.0, 222.0, 205.0), max(1, int(5 * step)))


def expose(rng: np.random.Generator, image: RgbImage) -> RgbImage:
    """The small changes of brightness and contrast and the sensor grain that every photo has."""
    gain, offset = rng.uniform(0.92, 1.08), rng.uniform(-8, 8)
    grain = rng.standard_normal(image.shape[:2], dtype=np.float32)[..., None] * 2.5
    return np.asarray(np.clip(image * np.float32(gain) + np.float32(offset) + grain, 0, 255), np.uint8)


def take_photo(rng: np.random.Generator, image: RgbImage, look: Look, horizon: int) -> RgbImage:
    """`image` (H, W, 3) uint8 under one open-world condition, the same shape and type."""
    height, width = image.shape[:2]
    pixels = image.astype(np.float32)
    match look:
        case Look.NIGHT:
            tint = channels(*rng.uniform((0.16, 0.20, 0.34), (0.28, 0.33, 0.50)))
            pixels = pixels * tint + rng.standard_normal(pixels.shape, dtype=np.float32) * 5
        case Look.DUSK:
            warm = channels(1.12, 0.66, 0.52) * np.float32(rng.uniform(0.62, 0.9))
            cool = channels(0.50, 0.42, 0.62)
            below = np.arange(height, dtype=np.float32) - horizon
            low = np.asarray(np.clip(below / (height - horizon), 0, 1), np.float32)[:, None, None]
            pixels = pixels * (warm * (1 - low) + cool * low) + channels(26, 8, 4)
        case Look.FOG:
            rows = np.abs(np.arange(height, dtype=np.float32) - horizon)[:, None] / height
            veil = rng.uniform(0.72, 0.9) - 0.55 * rows + 0.12 * noise(rng, height, width, 60, 2)
            thick = np.asarray(np.clip(veil, 0, 0.88), np.float32)
            pixels = pixels * (1 - thick[..., None]) + np.float32(rng.uniform(186, 222)) * thick[..., None]
        case Look.COLOUR_CAST:
            gains, offsets = rng.permutation((1.25, 0.85, 0.45)), rng.permutation((20, 6, 0))
            pixels = pixels * channels(*gains) + channels(*offsets)
        case Look.FADED:
            grey = pixels.mean(axis=2, keepdims=True)
            keep = np.float32(rng.uniform(0.0, 0.25))
            pixels = (grey * (1 - keep) + pixels * keep) * channels(0.72, 0.66, 0.56) + 52
        case Look.BLUR:
            pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), rng.uniform(1.8, 3.2)), np.float32)
        case Look.NOISE:
            pixels = pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(
                rng.uniform(24, 42)
            )
        case _:
            assert_never(look)
    return np.asarray(np.clip(pixels, 0, 255), np.uint8)
