"""What is known of images' content: unchanged, changed, never seen; over several parts and after reopening."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mad_backend.core.records import PoolImage
from mad_backend.pool.ids import image_keys
from mad_backend.pool.ledger import Ledger, SeenImage


def image(name: str, etag: str = "10-1") -> PoolImage:
    return PoolImage(name, f"/photos/{name}.png", etag)


def test_an_image_is_unchanged_while_its_source_says_the_same_of_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append([SeenImage(image("a"), 5, 6), SeenImage(image("b"), 7, 8)])
    for known in (ledger, Ledger(tmp_path)):
        asked = [image("a"), image("b", "10-2"), image("c")]
        assert known.unchanged(asked).tolist() == [True, False, False]
        digests, looks = known.content(image_keys(i.image_id for i in asked))
        assert digests.tolist() == [5, 7, 0]
        assert looks.tolist() == [6, 8, 0]


def test_a_later_part_replaces_what_was_known(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append([SeenImage(image("a", "1"), 5, 6)])
    ledger.append([SeenImage(image("a", "2"), 9, 2**64 - 1)])
    for known in (ledger, Ledger(tmp_path)):
        assert known.unchanged([image("a", "1"), image("a", "2")]).tolist() == [False, True]
        assert [v.tolist() for v in known.content(image_keys(["a"]))] == [[9], [2**64 - 1]]


def test_an_image_of_which_the_source_says_nothing_is_never_known_to_be_unchanged(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append([SeenImage(image("a", ""), 5, 6)])
    assert ledger.unchanged([image("a", "")]).tolist() == [False]
    assert ledger.content(image_keys(["a"]))[0].tolist() == [5]


def test_a_half_written_part_is_not_read_and_nothing_to_add_adds_no_part(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append([])
    assert not list(tmp_path.iterdir())
    ledger.append([SeenImage(image("a"), 5, 6)])
    (tmp_path / "part-00001.tmp").write_bytes(b"PAR1")
    assert Ledger(tmp_path).unchanged([image("a")]).all()


def test_what_is_known_already_is_not_written_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append([SeenImage(image("a"), 5, 6)])
    ledger.append([SeenImage(image("a"), 5, 6)])
    assert len(list(tmp_path.iterdir())) == 1
    ledger.append([SeenImage(image("a"), 5, 6), SeenImage(image("b"), 7, 8)])
    assert len(list(tmp_path.iterdir())) == 2
    assert Ledger(tmp_path).content(image_keys(["a", "b"]))[0].tolist() == [5, 7]


def test_two_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    def write_many(who: str) -> None:
        for n in range(20):
            Ledger(tmp_path).append([SeenImage(image(f"{who}{n}"), n + 1, 0)])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write_many, "ab"))
    keys = image_keys(f"{who}{n}" for who in "ab" for n in range(20))
    assert Ledger(tmp_path).content(keys)[0].tolist() == [*range(1, 21)] * 2
    assert {p.suffix for p in tmp_path.iterdir()} == {".parquet"}
