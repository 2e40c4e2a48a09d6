"""What happens in the child is told to the parent."""

import pytest
import torch
from measuring import doubled, dying, raising

from goae.benchmark.child import PartError, Setting, run_apart

SETTING = Setting(torch.device("cpu"), 1, 1)


def test_value_progress_and_threads() -> None:
    reports = []
    assert run_apart(doubled, SETTING, 21, report=lambda: reports.append(1)) == (42, 1, False)
    assert len(reports) == 2


def test_an_error_comes_with_its_traceback() -> None:
    with pytest.raises(PartError, match=r"(?s)Traceback.*ValueError: no such thing"):
        run_apart(raising, SETTING)


def test_a_death_comes_with_its_exit_code() -> None:
    with pytest.raises(PartError, match="exit code 7"):
        run_apart(dying, SETTING)
