"""What was measured in the mini world stays: tables and claims come again from the stored results of every image.

The rows of seeds 1 and 2 cannot be measured again, since their weights are not kept. A test here that fails says that
a computation has changed, and the tables of docs/results/mini with it; it is no reason to write these anew.
"""

import csv
import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from scripts import run_script

ROOT = Path(__file__).parents[3]
MINI = Path("docs/results/mini")
RECORDS = Path("goae/assets/mini/metrics.json")  # which meters are uninformative
TABLES = (1, 2, 3)
# Everything is computed in float64 from the same stored numbers. Sums of at most 1720 of them, added in another order,
# differ by 1720 * 2^-53 = 2e-13 of their terms; means of differences are a thousandth of these, or more.
RELATIVE, ABSOLUTE = 1e-9, 1e-12
OF_METHOD = ("generator", "encoder", "refiner", "goae", "perceptual", "optimisation", "regressor")
PRINTED = 1.001e-4  # the page of claims has four decimals: one unit of the last
FILES = {  # row -> the name of its files; those that are not here: w_plus
    **{"PTI": "pti", "Pose Opt.": "pose_opt", "IDE-3D": "ide3d", "pSp-3D": "psp", "e4e-3D": "e4e"},
    **{"Ours": "full", "w/o occlusion-aware": "no_mix", "w/ conv": "full", "w/ AFA": "full"},
}


def deviations(expected: Any, found: Any, path: str = "", *, absolute: float = ABSOLUTE) -> Iterator[str]:
    """Where `found` lacks or changes something of `expected`, with its path; what is new in it is no deviation."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            if key in found:
                yield from deviations(value, found[key], f"{path}/{key}", absolute=absolute)
            else:
                yield f"{path}/{key} is missing"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for i, pair in enumerate(zip(expected, found, strict=True)):
            yield from deviations(*pair, f"{path}/{i}", absolute=absolute)
    elif is_number(expected) and is_number(found):
        if not math.isclose(expected, found, rel_tol=RELATIVE, abs_tol=absolute):
            yield f"{path} is {found!r}, was {expected!r}"
    elif expected != found:
        yield f"{path} is {found!r}, was {expected!r}"


def compare(expected: Any, found: Any, *, absolute: float = ABSOLUTE) -> None:
    """Fail with the first deviations."""
    told = list(deviations(expected, found, absolute=absolute))
    if told:
        pytest.fail("\n".join([f"{len(told)} deviations from what is committed:", *told[:20]]), pytrace=False)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_table(folder: Path, number: int) -> dict[str, Any]:
    """A table's JSON; rows and differences by their names, so that a deviation tells of which."""
    whole: dict[str, Any] = json.loads((folder / f"table{number}.json").read_text())
    for key in ("rows", "subset_rows"):
        whole[key] = {row["method"]: row for row in whole[key]}
    gaps = whole["differences"]
    whole["differences"] = {f"{gap['first']} - {gap['second']}, {gap['column']}": gap for gap in gaps}
    assert len(whole["differences"]) == len(gaps)
    return whole


def read_csv(folder: Path, number: int) -> dict[str, Any]:
    """(method, source) -> column -> number, or text where there is none."""
    with (folder / f"table{number}.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {f"{row['method']}, {row['source']}": {k: as_number(v) for k, v in row.items()} for row in rows}


def as_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def read_claims(folder: Path) -> dict[str, Any]:
    """Claim or goal -> its verdict, and each check with its outcome and the numbers that it rests on."""
    page = (folder / "claims.md").read_text()
    verdicts = dict(re.findall(r"^\| (R\d+|Goal \d+) \|.*\| \*\*(.+)\*\* \|$", page, re.MULTILINE))
    parts = re.split(r"^## (.+?): (.+)$", page, flags=re.MULTILINE)[1:]
    found: dict[str, Any] = {}
    for name, verdict, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        assert verdicts.pop(name) == verdict
        checks = re.findall(r"^- (.+?): (yes|no|[^.:]+)\. (.+)$", body, re.MULTILINE)
        assert len(checks) == len(re.findall(r"^- ", body, re.MULTILINE)), name
        numbers = {text: {"outcome": outcome, "numbers": all_numbers(told)} for text, outcome, told in checks}
        found[name] = {"verdict": verdict, "checks": numbers}
    assert not verdicts
    return found


def all_numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d+)?", text)]


def copy_measured(folder: Path) -> Path:
    """The stored results and what the pages need beside them, in a folder laid out as the repository."""
    shutil.copytree(ROOT / MINI / "measured", folder / MINI / "measured")
    for path in (MINI / "edits.json", MINI / "claims-analysis.md", RECORDS):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return folder / MINI


def make(folder: Path, *jobs: str) -> Path:
    """Run tables.py in a copy, which has no weights: numbers can only come from what is stored. Returns: its pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for job in jobs:
            assert run_script("tables", *job.split()) == 0
    return folder / MINI


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tables and the claims, made again; of Tables 2 and 3 settings and hashes of shipped weights are compared.

    Those of Table 1 need weights that are downloaded; but for these, a test of its own compares them.
    """
    folder = tmp_path_factory.mktemp("golden")
    pages = copy_measured(folder)
    for number in (2, 3):
        assert run_script("tables", f"table={number}", f"output={pages}") == 0
    return make(folder, "table=1", "claims=true")


@pytest.mark.parametrize("number", TABLES)
def test_tables_come_again_from_stored_results(again: Path, number: int) -> None:
    compare(read_table(ROOT / MINI, number), read_table(again, number))
    compare(read_csv(ROOT / MINI, number), read_csv(again, number))


def test_claims_come_again_from_the_tables(again: Path) -> None:
    compare(read_claims(ROOT / MINI), read_claims(again), absolute=PRINTED)


def test_nothing_that_was_measured_is_changed(again: Path) -> None:
    for path in (ROOT / MINI / "measured").rglob("*.[cj]s*"):
        assert (again / path.relative_to(ROOT / MINI)).read_bytes() == path.read_bytes(), path


@pytest.mark.parametrize("number", TABLES)
def test_means_are_those_of_the_stored_rows(number: int) -> None:
    """Without the code that makes the tables: the mean over images, of the runs in turn."""
    compared = 0
    for method, row in read_table(ROOT / MINI, number)["rows"].items():
        for column, cell in (row["values"] | row["extra"]).items():
            metric, group = re.fullmatch(r"([A-Za-z_]+)(\d*)", column).groups()  # type: ignore[union-attr]
            means = [mean_of(run, method, metric.lower(), group) for run in row["runs"]]
            if None not in means:
                assert cell["ours"] == pytest.approx(fmean(means), rel=RELATIVE), (method, column)  # type: ignore[type-var]
                compared += 1
    assert compared >= {1: 90, 2: 80, 3: 18}[number]  # all but distances between sets, and times


def mean_of(run: str, method: str, metric: str, group: str) -> float | None:
    """A column's mean over a group of stored rows; None if it has no number per image."""
    folder = ROOT / MINI / "measured" / run / ("novel_view" if group else "input_view")
    rows = [row for row in stored_rows(folder / f"{FILES.get(method, 'w_plus')}.csv") if row["group"] == group]
    return fmean(float(row[metric]) for row in rows if row[metric]) if metric in rows[0] else None


@cache
def stored_rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_one_changed_number_shows(tmp_path: Path) -> None:
    """The MSE of one image of seed 1 grows by a thousandth."""
    path = copy_measured(tmp_path) / "measured/mini_ablation-table3-conv-mix_xyz-seed1/input_view/full.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    rows[17]["mse"] = repr(1.001 * float(rows[17]["mse"]))
    with path.open("w") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    pages = make(tmp_path, "table=3")
    found = list(deviations(read_table(ROOT / MINI, 3), read_table(pages, 3)))
    changed = {line.partition(" is ")[0] for line in found}
    cell = {f"/rows/w/ conv/values/MSE/{name}" for name in ("ours", "low", "high", "spread")}
    gap = {f"/differences/w/ AFA - w/ conv, MSE/{name}" for name in ("mean", "low", "high", "by_run/1")}
    assert cell | gap <= changed and all("MSE" in path for path in changed)
    assert any("w/ conv, measured/MSE" in line for line in deviations(read_csv(ROOT / MINI, 3), read_csv(pages, 3)))


def test_stored_results_are_those_of_the_shipped_weights(tmp_path: Path) -> None:
    """Of Table 1's methods that need nothing downloaded. Resamples only make intervals.

    Where stored settings lack one that came later, its default is meant, which is what was done before.
    """
    pages = copy_measured(tmp_path)
    forget_settings(pages / "measured/mini_long-seed0")
    job = ["table=1", "partial=true", "rows.optimization=[]", "resamples=2", f"output={pages}"]
    assert run_script("tables", *job) == 0
    before, now = (read_table(folder, 1)["rows"] for folder in (ROOT / MINI, pages))
    measured = {method: row["values"] for method, row in now.items() if row["status"] == "measured"}
    assert list(measured) == ["IDE-3D", "pSp-3D", "e4e-3D", "Ours-w+", "Ours"]
    for method, values in measured.items():
        ours = {column: {"ours": cell["ours"]} for column, cell in before[method]["values"].items()}
        compare({method: ours}, {method: values})


def forget_settings(run: Path) -> None:
    """Make a run's stored results such as they were before some settings came, hashes beside times included."""
    for path in run.glob("*/*.settings.json"):
        settings = json.loads(path.read_text())
        del settings["metrics"]["geometry_sign"]
        if "goae" in settings:
            del settings["goae"]["mix"]["depth_from"], settings["goae"]["edit_glass_comp"]
        path.write_text(json.dumps(settings))
        timed = path.with_name(path.name.replace("settings", "time"))
        if timed.exists():
            of_method = {key: settings[key] for key in OF_METHOD if key in settings}
            seconds = json.loads(timed.read_text())
            seconds["settings_sha256"] = hashlib.sha256(json.dumps(of_method, sort_keys=True).encode()).hexdigest()
            timed.write_text(json.dumps(seconds))
