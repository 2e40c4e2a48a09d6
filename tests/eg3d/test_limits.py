"""Limits on JSON and zip archives: hostile files are refused by name, and read ones stay as they are."""

import json
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
from eg3d.limits import MAX_NESTING, open_zip, read_json, read_member
from mutations import bounded, on_file, survives

VALUES = {"labels": [["a/ü.png", [1.5, -2, 1e-9]], ["b.png", None]], "n": True}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_of_json_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(VALUES, ensure_ascii=False), encoding=encoding)
    assert read_json(path) == VALUES == read_json(path.read_bytes(), "x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\0",
        b"<html>",
        b'{"a": 1' + b"0" * 400 + b"}",
        b"[" * 200 + b"]" * 200,
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b'{"a": "\xff"}',
        b'{"a": 1, "a": 2}',
        b"[" + b"[]," * 9_000_000 + b"[]]",
    ],
    ids=lambda data: repr(data[:9]),
)
def test_hostile_json_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"dataset\.json in x\.zip .*Make it again\."):
        read_json(data, "dataset.json in x.zip", remedy="Make it again.")


def test_deepest_json_is_read() -> None:
    assert read_json(b"[" * MAX_NESTING + b"]" * MAX_NESTING, "x")


def zipped(path: Path, **options: object) -> Path:
    """A zip of one member; options are attributes of its ZipInfo, and its content."""
    content = options.pop("content", b"abc")
    info = zipfile.ZipInfo("a.txt")
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in options.items():
            setattr(info, name, value)
        archive.writestr(info, content)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "/etc/x", "C:/x.png", "c:x", "a\\b.png", "..\\x", "..", "a/.."]
)
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"z\.zip cannot be read as a zip: its member .* unsafe name"):
        open_zip(zipped(tmp_path / "z.zip", filename=name, orig_filename=name))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(tmp_path: Path, compression: int) -> None:
    with pytest.raises(ValueError, match=r"z\.zip .*deflated"):
        open_zip(zipped(tmp_path / "z.zip", compress_type=compression))


def test_encrypted_links_and_duplicates_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "encrypted.zip")
    data = bytearray(path.read_bytes())
    for mark in (b"PK\3\4", b"PK\1\2"):
        data[data.index(mark) + (6 if mark == b"PK\3\4" else 8)] |= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"encrypted\.zip .*is encrypted; .*password"):
        open_zip(path)
    with pytest.raises(ValueError, match="link"):
        open_zip(zipped(tmp_path / "link.zip", external_attr=0o120777 << 16))
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    with pytest.raises(ValueError, match=r"twice\.zip .*same name"):
        open_zip(tmp_path / "twice.zip")


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    """A member of 80 MB of zeros, and one that unpacks to 80 MB and says it has 1000 bytes."""
    bomb, liar = tmp_path / "bomb.zip", tmp_path / "liar.zip"
    for path in (bomb, liar):
        zipped(path, content=bytes(80 << 20), compress_type=zipfile.ZIP_DEFLATED)
    data = bytearray(liar.read_bytes())
    place = data.index(b"PK\1\2") + 24
    data[place : place + 4] = struct.pack("<I", 1000)
    liar.write_bytes(data)
    with pytest.raises(ValueError, match=r"bomb\.zip .*unpacks from"):
        bounded(lambda: open_zip(bomb), memory=40 << 20)
    with pytest.raises(ValueError, match=r"a\.txt in .*liar\.zip is damaged: .*CRC"):
        bounded(lambda: read_member(open_zip(liar), "a.txt"), memory=40 << 20)


def test_members_are_read_and_a_limit_is_kept(tmp_path: Path) -> None:
    with open_zip(zipped(tmp_path / "z.zip", compress_type=zipfile.ZIP_DEFLATED, content=b"abc" * 99)) as archive:
        assert read_member(archive, "a.txt") == b"abc" * 99
        with pytest.raises(ValueError, match="at most 8"):
            read_member(archive, "a.txt", limit=8)
        with pytest.raises(KeyError):
            read_member(archive, "b.txt")
    with pytest.raises(FileNotFoundError):
        open_zip(tmp_path / "none.zip")


def test_mutated_json_and_zips(tmp_path: Path) -> None:
    def read_all(path: Path) -> list[bytes]:
        with open_zip(path) as archive:
            return [read_member(archive, name) for name in archive.namelist()]

    path = zipped(tmp_path / "z.zip", compress_type=zipfile.ZIP_DEFLATED, content=json.dumps(VALUES).encode() * 9)
    assert survives(on_file(path, read_all), [path.read_bytes()]).refused
    assert survives(lambda data: read_json(data, "x"), [json.dumps(VALUES, indent=1).encode()]).refused
