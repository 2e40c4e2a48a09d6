"""Resumable, checked, atomic download of one file."""

import hashlib
import json
import logging
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from eg3d.limits import read_json

from goae.fetching.index import TIMEOUT, request, without_credentials

if os.name == "posix":
    import fcntl

log = logging.getLogger(__name__)
CHUNK = 1 << 20
Progress = Callable[[int, int | None], None]


class HashMismatch(ValueError):
    """The bytes that arrived are not the file that was asked for; they have been removed."""


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    url: str,
    target: Path,
    *,
    client: urllib.request.OpenerDirector,
    sha256: str | None = None,
    sha256_prefix: str = "",
    size: int | None = None,
    tries: int = 4,
    pause: float = 1.0,
    progress: Progress | None = None,
) -> str:
    """Fetch `url` into `target`: through `target`.part, which an interrupted download leaves and the next one resumes.

    A server that does not answer ranges, or whose file has changed since, makes it start again.

    Args:
        sha256, sha256_prefix, size: what the file must have; None and "" are not checked.
        tries: attempts, each resuming where the last broke off; `pause` seconds between them, doubled each time.
    Returns: hex SHA-256 of the file.
    Raises: HashMismatch (what arrived is removed); OSError when the server cannot be reached.
    """
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        if target.is_file() and (sha256 is None or sha256_of(target) == sha256):
            return sha256_of(target)  # another process was faster
        for attempt in range(tries):
            try:
                _continue(url, part, client, progress)
                break
            except HTTPError as error:
                if error.code < 500 or attempt == tries - 1:
                    raise OSError(f"{without_credentials(url)}: {error}") from error
            except (OSError, HTTPException) as error:
                if attempt == tries - 1:
                    raise OSError(f"{without_credentials(url)}: {error}; run again to resume") from error
            log.info("%s: connection lost, resuming", without_credentials(url))
            time.sleep(pause * 2**attempt)
        digest = _checked(part, url, sha256, sha256_prefix, size)
        os.replace(part, target)
        _note(part).unlink(missing_ok=True)
    return digest


def _continue(url: str, part: Path, client: urllib.request.OpenerDirector, progress: Progress | None) -> None:
    """Append to `part` what is missing of `url`, or start it again."""
    have, validator = _state(part, url)
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if have and validator else {}
    try:
        answer = client.open(request(url, headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and have and error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return  # the part is the whole file
        if error.code == 416:
            part.unlink(missing_ok=True)
            raise OSError("the server refused to resume; starting again") from error
        raise
    with answer:
        resumed = answer.status == 206 and _range_start(answer.headers) == have if headers else False
        if headers and answer.status == 206 and not resumed:
            raise OSError("the server answered with another range than asked")
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        _write_note(part, url, answer.headers)
        with part.open("ab" if resumed else "wb") as file:
            while block := answer.read(CHUNK):
                file.write(block)
                have += len(block)
                if progress:
                    progress(have, total)
    if total is not None and have != total:
        raise OSError(f"connection closed after {have} of {total} bytes")


def _range_start(headers: Any) -> int | None:
    match = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(match.group(1)) if match else None


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _write_note(part: Path, url: str, headers: Any) -> None:
    """Remember which version of the file the part belongs to."""
    etag = headers.get("ETag") or ""
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified") or ""
    _note(part).write_text(json.dumps({"url": without_credentials(url), "validator": validator}))


def _state(part: Path, url: str) -> tuple[int, str]:
    """Bytes already there and the validator of their version; (0, "") if the part is of no use."""
    try:
        note = read_json(_note(part))
        same = note["url"] == without_credentials(url)
        return (part.stat().st_size, str(note["validator"])) if same else (0, "")
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""


def _checked(part: Path, url: str, sha256: str | None, prefix: str, size: int | None) -> str:
    digest, have = sha256_of(part), part.stat().st_size
    wrong = []
    if sha256 is not None and digest != sha256:
        wrong.append(f"SHA-256 {digest} instead of {sha256}")
    if not digest.startswith(prefix):
        wrong.append(f"SHA-256 {digest} instead of {prefix}...")
    if size is not None and have != size:
        wrong.append(f"{have} bytes instead of {size}")
    if wrong:
        part.unlink()
        _note(part).unlink(missing_ok=True)
        raise HashMismatch(f"{without_credentials(url)} is not the expected file and was removed: {'; '.join(wrong)}.")
    return digest


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Let one process at a time write `target`; the lock dies with its process, its empty file stays."""
    lock = target.with_name(target.name + ".lock")
    with lock.open("w") as file:
        if os.name == "posix":
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
