"""Which label maps are kept, how many, and what they take."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mad_backend.core.labels import LabelMap
from mad_backend.serving.map_cache import Content, MapCache


def noise(seed: int) -> LabelMap:
    return np.random.default_rng(seed).integers(0, 8, (20, 30), np.uint8)


def test_maps_come_back_as_they_were_by_version_image_and_content() -> None:
    cache = MapCache(1 << 20)
    kept = {(k, Content(i, d)): noise(d) for d, (k, i) in enumerate([("a", ""), ("b", ""), ("a", "pool/1")])}
    for (key, content), label_map in kept.items():
        cache.put(key, content, label_map)
    for (key, content), label_map in kept.items():
        found = cache.get(key, content)
        assert found is not None
        np.testing.assert_array_equal(found, label_map)
    assert cache.get("a", Content("pool/1", 0)) is None
    assert cache.get("b", Content("pool/1", 2)) is None


def test_what_was_not_used_longest_goes_first() -> None:
    cache = MapCache(3 * 2000)  # a map of noise takes some 1,200 bytes, and an entry 700 more
    for n in range(3):
        cache.put("a", Content("", n), noise(n))
    assert cache.get("a", Content("", 0)) is not None
    cache.put("a", Content("", 3), noise(3))
    assert [n for n in range(4) if cache.get("a", Content("", n)) is not None] == [0, 2, 3]


def test_a_map_that_comes_again_takes_its_place_and_no_more_room() -> None:
    cache = MapCache(2 * 2000)
    cache.put("a", Content("", 1), noise(1))
    for n in range(50):
        cache.put("a", Content("", 0), noise(n))
    found = cache.get("a", Content("", 0))
    assert found is not None
    np.testing.assert_array_equal(found, noise(49))
    assert cache.get("a", Content("", 1)) is not None


def test_maps_of_one_class_do_not_pile_up_either() -> None:
    cache = MapCache(100_000)
    for n in range(1000):
        cache.put("a", Content("", n), np.zeros((20, 30), np.uint8))
    assert sum(cache.get("a", Content("", n)) is not None for n in range(1000)) < 150


def test_without_room_nothing_is_kept_and_nothing_fails() -> None:
    cache = MapCache(0)
    cache.put("a", Content("", 0), noise(0))
    assert cache.get("a", Content("", 0)) is None


def test_many_threads_find_whole_maps() -> None:
    cache = MapCache(5 * 2000)

    def work(seed: int) -> None:
        for n in range(200):
            content = Content("", (seed + n) % 10)
            cache.put("a", content, noise(content.digest))
            found = cache.get("a", content)
            if found is not None:
                np.testing.assert_array_equal(found, noise(content.digest))

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(work, seed) for seed in range(4)]:
            done.result()
