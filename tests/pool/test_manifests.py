"""What rows of each kind of manifest say, and how faulty ones are named."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mad_backend.errors import PoolError
from mad_backend.pool.manifests import Entry, read_manifest, without_suffix

WHAT = 'source "s"'


def entries(path: Path, base: Path | str | None = None, masks: Path | None = None) -> list[Entry]:
    return list(read_manifest(path, base, {}, WHAT, masks))


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    address = "https://host/b.jpg"
    rows = {"image": ["a.png", address], "id": ["one", None], "mask": [None, "m.png"], "etag": [None, "v2"]}
    pq.write_table(pa.table({**rows, "width": [1, 2]}), tmp_path / "list.parquet")
    csv = f"width,image,id,mask,etag\n1,a.png,one,,\n2,{address},,m.png,v2\n"
    jsonl = f'{{"image": "a.png", "id": "one"}}\n\n{{"image": "{address}", "mask": "m.png", "etag": "v2"}}\n'
    wanted = [(str(tmp_path / "a.png"), "one", None, ""), (address, "host/b", tmp_path / "m.png", "v2")]
    for path in (
        tmp_path / "list.parquet",
        written(tmp_path / "list.csv", csv),
        written(tmp_path / "list.CSV", csv.replace("\n", "\r\n")),
        written(tmp_path / "list.jsonl", jsonl),
    ):
        assert [(e.address, e.image_id, e.mask, e.etag) for e in entries(path)] == wanted
    text = written(tmp_path / "list.txt", f"a.png\n# b.png\n  {address}\n")
    assert [(e.row, e.address) for e in entries(text)] == [(1, wanted[0][0]), (3, address)]


def test_a_spreadsheets_file_is_read_with_its_byte_order_mark_and_quoted_names(tmp_path: Path) -> None:
    path = written(tmp_path / "list.csv", '\ufeffimage , id\r\n"a, b.png",x\r\n')
    assert [(e.row, e.address, e.image_id) for e in entries(path)] == [(2, str(tmp_path / "a, b.png"), "x")]


def test_numbers_are_ids_too(tmp_path: Path) -> None:
    path = written(tmp_path / "list.jsonl", '{"image": "a.png", "id": 0}\n{"image": "b.png", "id": 17}')
    assert [e.image_id for e in entries(path)] == ["0", "17"]


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("list.csv", "picture\na.png\n", 'wanted a column "image", got picture'),
        ("list.csv", "", 'wanted a column "image", got none'),
        ("list.csv", "image,id\na.png,1\n,2\n", r"row 3: wanted the address or path of an image .*got ''"),
        ("list.csv", "image,id\na.png,1,2\n", "row 2: wanted 2 values, got more"),
        ("list.csv", 'image\n"a.png', "not CSV"),
        ("list.jsonl", '{"image": "a.png"}\n{"image": ', "row 2: not JSON"),
        ("list.jsonl", '{"picture": "a.png"}\n', r'row 1: wanted \{"image": ..., "id": ...\}, got'),
        ("list.jsonl", '"a.png"\n', r'row 1: wanted \{"image": ..., "id": ...\}, got "a\.png"'),
        ("list.jsonl", '{"image": null}\n', "row 1: wanted the address or path .*got None"),
        ("list.txt", b"\xff\xfe", "is not UTF-8 text"),
        ("list.parquet", b"PAR1", "is not a Parquet file"),
        ("list.tsv", "image\n", r"is no manifest by its name; wanted one of \.txt, \.csv"),
        ("list.txt", "simplecache::s3://bucket/a.png\n", "row 1: chained addresses"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_row(
    tmp_path: Path, name: str, content: str | bytes, wrong: str
) -> None:
    with pytest.raises(PoolError, match=rf'source "s": .*{name.replace(".", "[.]")}.*{wrong}'):
        entries(written(tmp_path / name, content))


def test_a_parquet_file_without_the_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["a"]}), tmp_path / "list.parquet")
    with pytest.raises(PoolError, match='wanted a column "image", got url'):
        entries(tmp_path / "list.parquet")
    pq.write_table(pa.table({"image": [{"bytes": b"", "path": "a"}]}), tmp_path / "list.parquet")
    with pytest.raises(PoolError, match=r"row 1: wanted the address or path of an image .*got \{'bytes'"):
        entries(tmp_path / "list.parquet")


def test_a_path_that_leads_up_is_followed_and_gives_no_id_that_does(tmp_path: Path) -> None:
    path = written(tmp_path / "list.txt", f"../a.png\n./b.png\nfile://{tmp_path}/c.png\n")
    found = entries(path)
    assert [e.address for e in found] == [
        str(tmp_path.parent / "a.png"),
        str(tmp_path / "b.png"),
        str(tmp_path / "c.png"),
    ]
    assert [e.image_id for e in found] == [f"{str(tmp_path.parent)[1:]}/a", "b", "c"]


@pytest.mark.parametrize("named", ["/etc/passwd", "file:///etc/passwd", "../../etc/passwd"])
def test_a_manifest_from_elsewhere_cannot_name_files_of_this_machine(tmp_path: Path, named: str) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/m/list.csv", f"image,mask\n{named},\n".encode())
    for base in (None, tmp_path) if named.startswith(("/", "file")) else (tmp_path,):
        with pytest.raises(
            PoolError, match=r"row 2: .* lies on this machine, where a manifest from elsewhere"
        ):
            list(read_manifest("memory://m/list.csv", base, {}, WHAT))
    fsspec.filesystem("memory").pipe_file("/m/list.csv", f"image,mask\na.png,{named}\n".encode())
    with pytest.raises(PoolError, match="row 2: "):
        list(read_manifest("memory://m/list.csv", None, {}, WHAT))
    with pytest.raises(PoolError, match=r"row 2: .* lies on this machine"):
        list(read_manifest("memory://m/list.csv", None, {}, WHAT, tmp_path))
    fsspec.filesystem("memory").store.clear()


def test_masks_must_lie_on_this_machine(tmp_path: Path) -> None:
    path = written(tmp_path / "list.csv", "image,mask\na.png,s3://bucket/a.png\n")
    with pytest.raises(PoolError, match=r"row 2: mask s3://bucket/a\.png must lie on this machine"):
        entries(path)


def test_only_suffixes_of_images_are_left_out_of_ids() -> None:
    names = ("a.png", "a.b.JPG", "v1.2", "deep/a.tiff", ".png", "deep/.png", "a")
    assert [without_suffix(n) for n in names] == ["a", "a.b", "v1.2", "deep/a", ".png", "deep/.png", "a"]
