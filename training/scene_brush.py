"""The brush that draws one object of a scene in the object's own units, and the light on what it drew."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from training.scene_textures import Colour, RgbImage, channels, jitter, noise

Point = tuple[float, float]
SUBPIXEL_BITS = 4


@dataclass
class Brush:
    """Draws one object into a scene, in the object's own units: height 1, foot at (0, 0), y up.

    `rgb` (H, W, 3) uint8 is drawn on at once, with smooth edges; `mask` (H, W) uint8 is 1 where covered.
    """

    rgb: RgbImage
    foot: Point
    size: float
    rng: np.random.Generator
    angle: float = 0.0
    mirrored: bool = False
    odd: bool = False
    mask: npt.NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.mask = np.zeros(self.rgb.shape[:2], np.uint8)

    def to_pixels(self, points: Sequence[Point]) -> npt.NDArray[np.int32]:
        """(n, 2) int32 in sixteenths of a pixel; turned by `angle` (radians) about the object's middle."""
        xy = np.array(points, np.float64) - (0, 0.5)
        if self.mirrored:
            xy[:, 0] = -xy[:, 0]
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        turned = xy @ np.array([[cosine, sine], [-sine, cosine]]) + (0, 0.5)
        image_xy = np.array(self.foot) + turned * (self.size, -self.size)
        return np.asarray(np.round(image_xy * (1 << SUBPIXEL_BITS)), np.int32)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        corners = self.to_pixels(points)
        cv2.fillPoly(self.rgb, [corners], colour, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.fillPoly(self.mask, [corners], 1, cv2.LINE_8, SUBPIXEL_BITS)

    def ellipse(self, centre: Point, radii: Point, colour: Colour) -> None:
        turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        rim = np.stack([centre[0] + radii[0] * np.cos(turn), centre[1] + radii[1] * np.sin(turn)], axis=1)
        self.polygon([(float(x), float(y)) for x, y in rim], colour)

    def box(self, left: float, bottom: float, width: float, height: float, colour: Colour) -> None:
        right, top = left + width, bottom + height
        self.polygon([(left, bottom), (right, bottom), (right, top), (left, top)], colour)

    def limb(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        """A straight bar from `start` to `end`."""
        along = np.array(end) - np.array(start)
        side = np.array((-along[1], along[0])) / (np.hypot(*along) + 1e-9) * width / 2
        ends = [np.array(start) - side, np.array(start) + side, np.array(end) + side, np.array(end) - side]
        self.polygon([(float(p[0]), float(p[1])) for p in ends], colour)

    def pick(self, usual: Sequence[Colour], spread: int = 14) -> Colour:
        """One of the usual colours; any strong colour for an object that is odd."""
        if self.odd:
            odd = [
                (232, 60, 170),
                (60, 60, 210),
                (120, 40, 170),
                (40, 200, 190),
                (240, 130, 20),
                (24, 24, 28),
            ]
            return jitter(self.rng, odd[int(self.rng.integers(len(odd)))], 24)
        return jitter(self.rng, usual[int(self.rng.integers(len(usual)))], spread)


def finish_surface(brush: Brush, patterned: bool) -> None:
    """Light from one side and the grain of a material on what `brush` covered; stripes or checks if asked."""
    rows, columns = np.nonzero(brush.mask)
    if rows.size == 0:
        return
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    height, width = int(bottom - top), int(right - left)
    light = np.linspace(1.1, 0.88, width, dtype=np.float32)[None, :] + 0.07 * noise(
        brush.rng, height, width, 4, 2
    )
    patch = brush.rgb[top:bottom, left:right]
    surface = patch * light[..., None]
    if patterned:
        period = max(3.0, brush.size / brush.rng.uniform(5, 9))
        bands = np.add.outer(
            np.arange(height) // period, np.arange(width) // period * brush.rng.integers(0, 2)
        )
        ink = channels(*jitter(brush.rng, (230, 226, 60), 90))
        surface = np.where((bands % 2 == 1)[..., None], ink * light[..., None], surface)
    inside = brush.mask[top:bottom, left:right] > 0
    patch[inside] = np.clip(surface[inside], 0, 255).astype(np.uint8)


def shaded(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(np.clip(c * factor, 0, 255)) for c in colour)
    return red, green, blue
