"""What a user can mend is said in one paragraph, with exit code 1; bugs keep their traceback."""

from goae.errors import ends_with_this_process, one_paragraph

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import torch
from eg3d.checkpoint import load
from PIL import Image

from goae.data.datasets import PosedImages
from goae.training.nonfinite import NonFiniteLossError


def corrupt(folder: Path) -> Callable[[], Any]:
    path = folder / "generator.pkl"
    path.write_bytes(pickle.dumps({"G_ema": 1}, protocol=4)[:-3])
    return lambda: load(path)


def hostile(folder: Path) -> Callable[[], Any]:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (folder / "marker",)

    path = folder / "generator.pkl"
    path.write_bytes(pickle.dumps({"G_ema": Evil()}, protocol=4))
    return lambda: load(path)


def images(folder: Path, *, mode: str = "RGB", size: tuple[int, int] = (8, 8), label: Any = None) -> Callable[[], Any]:
    good = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1, 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]
    path = folder / "data.zip"
    Image.new(mode, size).save(folder / "a.png")
    with zipfile.ZipFile(path, "w") as file:
        file.write(folder / "a.png", "a.png")
        labels = [] if label == "missing" else [["a.png", good if label is None else label]]
        file.writestr("dataset.json", json.dumps({"labels": labels}))
    return lambda: PosedImages(path, radius=2.7)[0]


def far_away() -> list[float]:
    return [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 5.0, 0, 0, 0, 1, 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]


def raise_(error: Exception) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail


CASES: dict[str, tuple[Callable[[Path], Callable[[], Any]], str]] = {
    "missing checkpoint": (lambda folder: lambda: load(folder / "none.pkl"), "none.pkl"),
    "corrupt checkpoint": (corrupt, "generator.pkl"),
    "hostile checkpoint": (hostile, "generator.pkl"),
    "missing data": (lambda folder: lambda: PosedImages(folder / "none.zip"), "none.zip"),
    "missing label": (lambda folder: images(folder, label="missing"), "a.png"),
    "label of wrong length": (lambda folder: images(folder, label=[1.0, 2.0]), "25"),
    "label of wrong radius": (lambda folder: images(folder, label=far_away()), "2.7"),
    "grey image": (lambda folder: images(folder, mode="L"), "RGB"),
    "image with alpha": (lambda folder: images(folder, mode="RGBA"), "RGB"),
    "oblong image": (lambda folder: images(folder, size=(8, 6)), "square"),
    "non-finite loss": (lambda folder: raise_(NonFiniteLossError("the term 'l2' is nan")), "l2"),
    "unwritable folder": (lambda folder: raise_(PermissionError(13, "Permission denied", "runs/x")), "runs/x"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_paragraph_with_exit_code_1(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, named = CASES[name]
    action = prepare(tmp_path)
    with pytest.raises(SystemExit) as stop, one_paragraph():
        action()
    assert stop.value.code == 1
    text = capsys.readouterr().err
    assert text.startswith("error: ") and named in text
    assert text.count("\n") == 1 and len(text) > 20
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more"), "smaller batches"),
        (MemoryError(), "MemoryError; the memory is not enough"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 103104 vs 103024"), "free space"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "free space on the disk"),
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), "start fewer workers"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "the program that reads this one's output has ended"),
    ],
)
def test_what_a_machine_lacks_is_said_with_a_remedy(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "dup2", lambda *handles: None)  # stdout stays as it is
    with pytest.raises(SystemExit) as stop, one_paragraph():
        raise error
    text = capsys.readouterr().err
    assert stop.value.code == 1 and text.startswith("error: ") and told in text and text.count("\n") == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_ctrl_c_ends_all_ranks_in_one_line(
    rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    others: list[subprocess.Popen] = []
    ends_with_this_process(others)
    others.append(subprocess.Popen(["sleep", "60"]))
    with pytest.raises(SystemExit) as stop, one_paragraph(lambda: "step 4 is kept."):
        raise KeyboardInterrupt
    assert stop.value.code == 130 and others.pop().wait(5) != 0
    assert capsys.readouterr().err == ("" if rank else "stopped: step 4 is kept.\n")


def test_ctrl_c_while_a_script_is_loaded_is_one_line() -> None:
    code = "import goae.errors, os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)"
    ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert ended.returncode == -signal.SIGINT  # 130 in a shell
    assert ended.stderr == "stopped before anything was begun.\n"


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(KeyError), one_paragraph():
        {}["bug"]  # type: ignore[index]
