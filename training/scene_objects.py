"""The things in the drawn scenes: seven classes of objects, and things that belong to the background."""

from collections.abc import Callable

import numpy as np

from training.scene_brush import Brush, shaded
from training.scene_textures import jitter


def draw_house(brush: Brush) -> None:
    rng = brush.rng
    half, wall = rng.uniform(0.42, 0.72), rng.uniform(0.5, 0.62)
    walls = brush.pick([(226, 208, 176), (196, 120, 92), (236, 234, 226), (206, 186, 140), (170, 190, 198)])
    roof = brush.pick([(150, 66, 48), (112, 78, 62), (92, 96, 106), (168, 92, 60)])
    side, eave, top = half * rng.uniform(0.3, 0.55), 0.06, 0.94
    if rng.random() < 0.6:
        brush.box(half * 0.35, wall, 0.12, 0.44, shaded(roof, 0.8))
    brush.polygon([(half, 0), (half + side, 0.06), (half + side, wall), (half, wall)], shaded(walls, 0.72))
    brush.box(-half, 0, 2 * half, wall, walls)
    if rng.random() < 0.5:
        brush.polygon(
            [(0, top), (side, top), (half + side + eave, wall), (half, wall - 0.02)], shaded(roof, 0.82)
        )
        brush.polygon([(-half - eave, wall - 0.02), (half + eave, wall - 0.02), (0, top)], roof)
    else:
        ridge = half * rng.uniform(0.45, 0.85)
        outline = [
            (-half - eave, wall - 0.02),
            (half + side + eave, wall - 0.02),
            (ridge + side, top),
            (-ridge, top),
        ]
        brush.polygon(outline, roof)
    pane, panes = jitter(rng, (78, 98, 120), 16), int(rng.integers(2, 4))
    for k in range(panes):
        left = -half + 2 * half * (k + 0.5) / panes - 0.08
        brush.box(left - 0.02, wall * 0.44 - 0.02, 0.2, 0.24, shaded(walls, 1.2))
        brush.box(left, wall * 0.44, 0.16, 0.2, pane)
    brush.box(rng.uniform(-half * 0.6, half * 0.4), 0, 0.16, wall * 0.4, shaded(roof, 0.7))


def draw_tree(brush: Brush) -> None:
    rng = brush.rng
    bark = jitter(rng, (98, 72, 50), 14)
    leaf = brush.pick([(56, 110, 48), (74, 128, 54), (44, 92, 58), (96, 138, 60)])
    kind = rng.random()
    if kind < 0.35:
        brush.box(-0.04, 0, 0.08, 0.25, bark)
        width, tiers = rng.uniform(0.24, 0.36), int(rng.integers(3, 5))
        for tier in range(tiers):
            low, spread = 0.12 + 0.72 * tier / tiers, width * (1 - 0.72 * tier / tiers)
            tip = min(low + 1.25 * 0.75 / tiers + 0.1, 1.0)
            brush.polygon([(-spread, low), (spread, low), (0, tip)], shaded(leaf, 0.82 + 0.1 * tier))
        return
    slim = kind > 0.85
    brush.polygon([(-0.06, 0), (0.06, 0), (0.03, 0.5), (-0.03, 0.5)], bark)
    width = 0.15 if slim else rng.uniform(0.26, 0.42)
    for k in range(11):
        turn, reach = k * 2.4, 0.62 * np.sqrt((k + 0.5) / 11)
        centre = (width * reach * np.cos(turn), 0.64 + 0.33 * reach * np.sin(turn))
        tone = shaded(leaf, 0.78 + 0.4 * (centre[1] - 0.4) + rng.uniform(-0.06, 0.06))
        brush.ellipse(centre, (width * rng.uniform(0.4, 0.6), 0.16 * rng.uniform(0.8, 1.2)), tone)


def draw_car(brush: Brush) -> None:
    rng = brush.rng
    usual = [(186, 40, 38), (44, 84, 156), (232, 232, 228), (226, 182, 48), (58, 62, 70), (150, 156, 162)]
    paint, glass, rubber = brush.pick(usual), jitter(rng, (96, 122, 140), 12), (30, 30, 32)
    long = rng.uniform(1.15, 1.4)
    if rng.random() < 0.3:
        brush.polygon([(-long, 0.16), (long, 0.16), (long, 0.5), (long * 0.75, 1.0), (-long, 1.0)], paint)
        brush.polygon(
            [(long * 0.45, 0.56), (long * 0.92, 0.56), (long * 0.72, 0.9), (long * 0.45, 0.9)], glass
        )
        brush.box(-long * 0.8, 0.58, long * 0.9, 0.3, shaded(paint, 0.85))
    else:
        rear, front = -long * rng.uniform(0.55, 0.85), long * rng.uniform(0.2, 0.35)
        brush.polygon(
            [(rear - 0.15, 0.55), (rear + 0.2, 0.98), (front, 0.98), (front + 0.4, 0.55)], shaded(paint, 0.9)
        )
        brush.polygon([(rear + 0.02, 0.58), (rear + 0.26, 0.9), (-0.06, 0.9), (-0.06, 0.58)], glass)
        brush.polygon([(0.02, 0.58), (0.02, 0.9), (front - 0.02, 0.9), (front + 0.24, 0.58)], glass)
        nose = [(-long, 0.2), (long, 0.2), (long, 0.42), (front + 0.45, 0.58), (-long * 0.96, 0.6)]
        brush.polygon(nose, paint)
    brush.box(-long, 0.16, 2 * long, 0.1, shaded(paint, 0.6))
    for x in (-long * 0.6, long * 0.6):
        brush.ellipse((x, 0.2), (0.22, 0.22), rubber)
        brush.ellipse((x, 0.2), (0.1, 0.1), (168, 170, 172))
    brush.box(long - 0.12, 0.38, 0.12, 0.1, (246, 236, 180))


def draw_person(brush: Brush) -> None:
    rng = brush.rng
    skin = jitter(rng, [(232, 190, 160), (188, 138, 104), (112, 78, 58)][int(rng.integers(3))], 10)
    shirt = brush.pick([(196, 52, 56), (48, 92, 170), (236, 232, 224), (230, 170, 50), (60, 130, 92)])
    trousers = brush.pick([(44, 52, 84), (70, 62, 56), (32, 34, 40), (128, 112, 86)])
    stride, swing = rng.uniform(0.03, 0.14), rng.uniform(0.08, 0.2)
    brush.limb((-0.05, 0.48), (-0.04 - stride, 0.02), 0.09, shaded(trousers, 0.85))
    brush.limb((0.05, 0.48), (0.04 + stride, 0.02), 0.09, trousers)
    for x in (-0.02 - stride, 0.07 + stride):
        brush.ellipse((x, 0.02), (0.06, 0.025), (36, 30, 28))
    brush.limb((-0.11, 0.78), (-0.13 - swing / 2, 0.46), 0.065, shaded(shirt, 0.8))
    if rng.random() < 0.35:
        brush.polygon([(-0.1, 0.8), (0.1, 0.8), (0.22, 0.3), (-0.22, 0.3)], shirt)
    else:
        brush.polygon([(-0.13, 0.81), (0.13, 0.81), (0.1, 0.45), (-0.1, 0.45)], shirt)
    brush.limb((0.11, 0.78), (0.13 + swing, 0.48), 0.065, shaded(shirt, 0.9))
    brush.box(-0.03, 0.79, 0.06, 0.06, skin)
    brush.ellipse((0, 0.91), (0.075, 0.09), skin)
    hair = [(50, 36, 28), (148, 104, 58), (90, 88, 90)][int(rng.integers(3))]
    brush.polygon([(-0.085, 0.9), (-0.08, 0.97), (0, 1.01), (0.08, 0.97), (0.085, 0.93), (-0.03, 0.94)], hair)


def draw_boat(brush: Brush) -> None:
    rng = brush.rng
    hull = brush.pick([(236, 234, 228), (150, 60, 44), (42, 70, 116), (124, 84, 52), (36, 96, 84)])
    if rng.random() < 0.6:
        half, deck = rng.uniform(0.42, 0.56), 0.2
        sail = brush.pick([(244, 242, 234), (236, 226, 200), (206, 72, 60)])
        brush.limb((0, deck), (0, 1.0), 0.03, (96, 74, 54))
        brush.polygon([(0.03, 0.27), (half * 0.85, 0.27), (0.03, 0.97)], sail)
        brush.polygon([(-0.03, 0.3), (-half * 0.7, 0.3), (-0.03, 0.86)], shaded(sail, 0.88))
    else:
        half, deck = rng.uniform(0.95, 1.25), 0.42
        cabin = jitter(rng, (228, 226, 218), 12)
        brush.box(-half * 0.55, deck, half * 0.9, 0.4, cabin)
        for k in range(3):
            brush.box(-half * 0.48 + k * half * 0.28, deck + 0.14, half * 0.18, 0.16, (74, 98, 118))
        brush.limb((half * 0.2, deck + 0.3), (half * 0.2, 1.0), 0.04, (90, 84, 80))
    outline = [(-half * 0.82, 0), (half * 0.72, 0), (half * 1.1, deck + 0.06), (-half, deck)]
    brush.polygon(outline, hull)
    brush.polygon(
        [(-half * 0.82, 0), (half * 0.72, 0), (half * 0.8, deck * 0.25), (-half * 0.86, deck * 0.25)],
        shaded(hull, 0.6),
    )


def draw_animal(brush: Brush) -> None:
    rng = brush.rng
    coat = brush.pick([(140, 92, 58), (228, 222, 210), (62, 50, 44), (188, 142, 92), (238, 236, 230)])
    leggy, neck = rng.uniform(0.3, 0.46), rng.uniform(0.1, 0.3)
    woolly, dark = rng.random() < 0.3, shaded(coat, 0.72)
    long, back = rng.uniform(0.5, 0.66), 0.72
    for x, tone in ((-0.8, dark), (0.62, dark), (-0.6, coat), (0.8, coat)):
        brush.limb(
            (x * long, leggy + 0.08), (x * long + rng.uniform(-0.05, 0.05), 0), 0.085, shaded(tone, 0.85)
        )
    brush.limb((-long, back - 0.05), (-long - 0.12, leggy), 0.05, dark)
    brush.ellipse((0, (leggy + back) / 2), (long * 1.08, (back - leggy) / 2 + 0.07), coat)
    if woolly:
        for k in range(9):
            brush.ellipse(
                (long * (-1 + k / 4), back - 0.03 + 0.05 * (k % 2)),
                (0.13, 0.1),
                shaded(coat, 1 + 0.05 * (k % 2)),
            )
    elif rng.random() < 0.4:
        for _ in range(4):
            spot = (rng.uniform(-0.7, 0.7) * long, rng.uniform(leggy + 0.1, back - 0.05))
            brush.ellipse(spot, (0.11, 0.07), dark)
    head = (long + 0.1 + neck * 0.5, min(back + neck * 0.75, 0.88))
    brush.limb((long * 0.75, back - 0.1), head, 0.2, coat)
    brush.ellipse((head[0] + 0.08, head[1] - 0.02), (0.17, 0.1), dark if woolly else coat)
    for shift in (-0.04, 0.04):
        brush.limb((head[0] + shift, head[1] + 0.05), (head[0] + shift - 0.03, head[1] + 0.14), 0.05, dark)


def draw_balloon(brush: Brush) -> None:
    rng = brush.rng
    usual = [(204, 48, 48), (236, 190, 52), (48, 100, 180), (240, 238, 230), (226, 118, 40), (70, 150, 90)]
    first, second = brush.pick(usual), brush.pick(usual)
    wide, gores = rng.uniform(0.32, 0.39), int(rng.integers(5, 8))
    rim = np.array(
        [
            (1.0, 0.02),
            (0.97, 0.45),
            (0.88, 0.8),
            (0.74, 1.0),
            (0.6, 0.96),
            (0.45, 0.72),
            (0.32, 0.4),
            (0.24, 0.22),
        ]
    )
    for x in (-0.2, 0.2):
        brush.limb((x * wide, 0.26), (x * 0.8 * wide, 0.1), 0.015, (90, 76, 60))
    for gore in range(gores):
        left, right = np.sin(np.pi * (np.array((gore, gore + 1)) / gores - 0.5))
        edge = [(left * wide * w, y) for y, w in rim] + [(right * wide * w, y) for y, w in rim[::-1]]
        tone = shaded(first if gore % 2 else second, 1.06 - 0.28 * gore / gores)
        brush.polygon(edge, tone)
    brush.box(-0.07, 0, 0.14, 0.11, (128, 88, 50))


def draw_rock(brush: Brush) -> None:
    turn = np.sort(brush.rng.uniform(0, np.pi, 7))
    grey = jitter(brush.rng, (128, 124, 118), 18)
    rim = [(float(1.1 * np.cos(t)), float(np.sin(t) * brush.rng.uniform(0.75, 1))) for t in turn]
    brush.polygon([(1.2, 0), *rim, (-1.2, 0)], shaded(grey, 0.85))
    brush.polygon([(0.2, 0.1), *[(x * 0.7, y * 0.92) for x, y in rim if x < 0.6], (-0.9, 0.1)], grey)


def draw_fence(brush: Brush) -> None:
    wood = jitter(brush.rng, (150, 124, 92), 20)
    for y in (0.35, 0.72):
        brush.box(-3, y, 6, 0.14, wood)
    for x in np.linspace(-3, 2.85, 8):
        brush.box(float(x), 0, 0.16, 1.0, shaded(wood, 0.88))


def draw_sign(brush: Brush) -> None:
    plate = jitter(brush.rng, [(44, 88, 160), (206, 60, 52), (240, 210, 70)][int(brush.rng.integers(3))], 12)
    brush.box(-0.03, 0, 0.06, 0.75, (126, 128, 130))
    if brush.rng.random() < 0.5:
        brush.ellipse((0, 0.82), (0.19, 0.19), (238, 238, 236))
        brush.ellipse((0, 0.82), (0.15, 0.15), plate)
    else:
        brush.box(-0.26, 0.64, 0.52, 0.34, plate)
        brush.box(-0.2, 0.76, 0.4, 0.08, (240, 240, 236))


def draw_bale(brush: Brush) -> None:
    straw = jitter(brush.rng, (206, 172, 96), 14)
    brush.box(-0.1, 0, 0.9, 0.98, shaded(straw, 0.84))
    for radius in (0.5, 0.36, 0.2):
        brush.ellipse((-0.1, 0.5), (radius, radius), shaded(straw, 1.1 - 0.5 * (0.5 - radius)))


DRAWERS: tuple[Callable[[Brush], None], ...] = (
    draw_house, draw_tree, draw_car, draw_person, draw_boat, draw_animal, draw_balloon,
)  # fmt: skip
"""The drawer of class id k + 1 at index k."""

DISTRACTORS: tuple[Callable[[Brush], None], ...] = (draw_rock, draw_fence, draw_sign, draw_bale)
"""Things that stand in front of objects and count as background."""
