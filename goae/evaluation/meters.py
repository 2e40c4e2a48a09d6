"""Whether a meter can tell people apart, and what a table has to say where it cannot.

A meter proves itself on true pairs of pictures (`goae.evaluation.pairs`) before a table uses it. Its numbers stand in
section `meters` of the records; below an AUC of `LEAST_AUC` they carry a footnote wherever the meter is shown.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from goae.evaluation.intervals import Estimate, bootstrap
from goae.evaluation.pairs import Between, Pairs, area_under_curve

LEAST_AUC = 0.8
METERS = {
    "lpips": "LPIPS (AlexNet)",
    "identity": "identity by the mini network",
    "identity_independent": "identity by the face-recognition ResNet",
    "fd_mini": "Fréchet features of the mini network",
    "fd_vgg": "Fréchet features of VGG16",
}
Records = Mapping[str, Any]


@torch.no_grad()
def pair_auc(between: Between, pairs: Pairs, *, num: int, seed: int = 0) -> Estimate:
    """How well distances tell the same person from another; the interval is over people."""
    same, other = between(pairs.first, pairs.same), between(pairs.first, pairs.other)
    return bootstrap(lambda rows: area_under_curve(same[rows], other[rows]), pairs.person, num=num, seed=seed)


def meter_record(auc: Estimate, pairs: Pairs) -> dict[str, Any]:
    """What is recorded of a meter."""
    counts = {"pairs": len(pairs.first), "people": len(pairs.person.unique())}
    return {**auc.as_record("auc"), **counts, "informative": auc.value >= LEAST_AUC}


def is_informative(records: Records, meter: str) -> bool:
    """Whether a meter's AUC reached `LEAST_AUC`.

    Raises: ValueError if the meter is unknown or was never checked.
    """
    return bool(_record(records, meter)["informative"])


def footnotes(records: Records, meters: Iterable[str]) -> dict[str, str]:
    """meter -> what a table that shows it has to say; only those that are not informative."""
    notes = {}
    for meter in meters:
        if not is_informative(records, meter):
            found = _record(records, meter)
            low, high = found["auc_interval"]
            notes[meter] = (
                f"{METERS[meter]}: uninformative on these images. It tells the same person in another view from "
                f"another person with AUC {found['auc']:.2f} (95 %: {low:.2f} to {high:.2f}), below {LEAST_AUC}."
            )
    return notes


def _record(records: Records, meter: str) -> Mapping[str, Any]:
    if meter not in METERS:
        raise ValueError(f"no meter is called {meter!r}; expected one of {', '.join(METERS)}")
    found = records.get("meters", {}).get(meter)
    if found is None:
        raise ValueError(f"the meter {meter} was not checked yet; run `python scripts/check_meters.py`")
    return found
