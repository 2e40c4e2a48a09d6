"""What a file is, by its first bytes: for messages about files that are not what was expected."""

from pathlib import Path

HEAD = 512  # bytes to look at
ZIP = b"PK\x03\x04"
SAFETENSORS = "it looks like a safetensors file; such a file is named *.safetensors, with a .json beside it"
_LONGEST_HEADER = 100_000_000  # bytes, of a safetensors file
_MAGIC = (
    (b"version https://git-lfs", "a Git LFS pointer instead of the file; run `git lfs pull` where it was cloned"),
    (b"\x89HDF", "an HDF5 file, as TensorFlow and Keras write"),
    (b"\x08\x01\x12", "a TensorFlow model"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a rar archive; unpack it first"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "a NumPy array"),
    (ZIP, "a zip archive"),
)


def looks_like(head: bytes) -> str:
    """Say what a file that starts with `head` is, as "it is ..."; empty where that is not easy to see."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        return "it is empty: a copy or download was cut off at its start"
    if not head.strip(b"\0"):
        return "it starts with nothing but zeros: a copy or download was not finished"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:
        return SAFETENSORS
    if text.startswith(b"<"):
        return "it is a web page, so the download was answered by an error or a form"
    if found := next((told for magic, told in _MAGIC if head.startswith(magic)), None):
        return f"it is {found}"
    if head[257:262] == b"ustar":
        return "it is a tar archive; unpack it first"
    if head[4:8] == b"TFL3":
        return "it is a TensorFlow Lite model"
    if text[:1] in (b"{", b"["):
        return "it is JSON or another text"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"it is a text that starts with {head[:40].decode()!a}"
    return ""


def look(path: Path) -> str:
    """Say what a file is, as `looks_like`. Raises: OSError if it cannot be read."""
    with path.open("rb") as file:
        return looks_like(file.read(HEAD))
