"""Label maps for tests: of every kind that a compiled loop may treat differently, and real ones."""

from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from mad_backend.core.labels import VOID, LabelMap

IDS = st.sampled_from([0, 1, 2, 3, 20, VOID])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[LabelMap, LabelMap]:
    """Two maps of one shape: noise, or runs of any length, up to several thousand pixels."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 120))
    return draw(_label_map(height, width)), draw(_label_map(height, width))


@st.composite
def _label_map(draw: st.DrawFn, height: int, width: int) -> LabelMap:
    size = height * width
    if draw(st.booleans()):
        noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        return noise.choice(np.array([0, 1, 2, 20, VOID], np.uint8), (height, width))
    runs = draw(st.lists(st.tuples(st.integers(1, 5000), IDS), min_size=1, max_size=12))
    flat = np.concatenate([np.full(length, value, np.uint8) for length, value in runs])
    return np.resize(flat, size).reshape(height, width)


SMALL = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20))


def real_maps(folder: Path, count: int) -> list[LabelMap]:
    """The first label maps (index PNGs) of a folder, on a 513 x 513 grid."""
    files = sorted(folder.glob("*.png"))[:count]
    return [np.asarray(Image.open(f).resize((513, 513), Image.Resampling.NEAREST), np.uint8) for f in files]


def counted(rows: LabelMap, columns: LabelMap, classes: int) -> np.ndarray:
    """The joint histogram by plain numpy: what every faster way must equal."""
    joint = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(joint, (np.minimum(rows, classes).ravel(), np.minimum(columns, classes).ravel()), 1)
    return joint
