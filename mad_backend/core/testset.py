"""T: an unbiased test set drawn from M without looking at the scores (Sec. 4.1, "Model evaluation")."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import Candidate

MAX_PER_MAIN_CLASS = 4
"""[P] At most four images with the same main foreground object."""


def main_foreground(label_map: LabelMap, labels: LabelSet) -> int:
    """Id of the largest foreground class, smallest id on a tie; 0 when there is none."""
    counts = np.bincount(label_map.ravel(), minlength=256)
    foreground = list(labels.foreground_ids)
    best = max(foreground, key=lambda k: (counts[k], -k))
    return best if counts[best] else 0


def majority(votes: Sequence[int]) -> int:
    """The main class most models name, smallest id on a tie."""
    counts = Counter(votes)
    return min(counts, key=lambda k: (-counts[k], k))


def draw_test_set(
    candidates: Sequence[Candidate],
    main_class: Mapping[str, int],
    size: int,
    seed: int,
    vetoed: Collection[str] = (),
    per_class: int = MAX_PER_MAIN_CLASS,
    refused: Collection[str] = (),
) -> list[str]:
    """`size` image ids of M in the order drawn: uniformly over (competing model, role), then over that stratum.

    (1) no vetoed image; (2) at most `per_class` with the same main foreground object, `main_class` by image id;
    (3) none of `refused`, which some model has learnt by another name; images of any earlier S or T are not in M in the
    first place. Fewer are returned when the caps leave fewer. A smaller `size` gives the first of the same images.
    """
    rng = np.random.default_rng(seed)
    strata: dict[tuple[str, str], list[str]] = {}
    for candidate in sorted(candidates, key=lambda c: c.image_id):
        if candidate.image_id not in vetoed and candidate.image_id not in refused:
            for key in sorted({(p.competitor, str(p.role)) for p in candidate.provenance}):
                strata.setdefault(key, []).append(candidate.image_id)
    drawn: list[str] = []
    seen: set[str] = set()
    used: Counter[int] = Counter()
    keys = sorted(strata)
    for key in keys:
        rng.shuffle(strata[key])
    while keys and len(drawn) < size:
        key = keys[int(rng.integers(len(keys)))]
        if not strata[key]:
            keys.remove(key)
            continue
        image_id = strata[key].pop()
        if image_id not in seen and used[main_class[image_id]] < per_class:
            drawn.append(image_id)
            used[main_class[image_id]] += 1
        seen.add(image_id)
    return drawn


def surplus(test_set: Sequence[str], human_main_class: Mapping[str, int], per_class: int) -> list[str]:
    """Images to drop once the human maps are there: beyond `per_class` of one main object, in the order drawn."""
    used: Counter[int] = Counter()
    dropped = []
    for image_id in test_set:
        used[human_main_class[image_id]] += 1
        if used[human_main_class[image_id]] > per_class:
            dropped.append(image_id)
    return dropped
