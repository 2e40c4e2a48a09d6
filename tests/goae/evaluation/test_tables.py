"""Tables from made-up stored results: cells against hand-computed ones, subsets, several runs, pages."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from goae.evaluation.cells import Measured, split_column
from goae.evaluation.distribution import frechet_distance
from goae.evaluation.intervals import mean_interval
from goae.evaluation.paper_tables import TABLE_1, TABLE_2, TABLE_3, TABLES
from goae.evaluation.protocols import COLUMNS
from goae.evaluation.results import Results
from goae.evaluation.sets import write_sets
from goae.evaluation.stored import read_stored
from goae.evaluation.table_notes import data_note
from goae.evaluation.table_pages import csv_page, html_page, markdown_page
from goae.evaluation.tables import SOURCES, meters_of, protocols_of, table_json

METRICS = ("mse", "psnr", "ssim", "ms_ssim", "lpips", "id", "id_independent", "geo", "depth")
SETTINGS: dict[str, Any] = {
    "images": {"sha256": "0"},
    "num_tasks": 8,
    "resolution": 64,
    "metric_resolution": 64,
    "device": "cpu",
    "metrics": {
        "lpips": "alex",
        "identity": "mini",
        "identity_independent": "face_resnet",
        "geometry": "true",
        "features": "vgg",
        "features_beside": "mini",
    },
}
HOW: dict[str, Any] = {"world": "mini", "resamples": 50, "uninformative": ["LPIPS"], "meter_notes": ["LPIPS: poor."]}


def value(method: str, metric: str, task: int, place: int, shift: float = 0.0) -> float:
    """Different for every method, metric, task and place."""
    return shift + len(method) / 10 + METRICS.index(metric) + task / 100 + place / 1000


def store(
    folder: Path, method: str, *, tasks: Sequence[int] = range(8), novel: bool = False, shift: float = 0.0
) -> None:
    """8 tasks of 4 persons; novel: two targets each, odd tasks from a side face. Features: two and one beside."""
    places = 2 if novel else 1
    results = Results(folder, method, [*COLUMNS, *METRICS, "failed"], width=3, places=places)
    images = Results(folder, "images", ["target"], width=3, places=1)
    if not images.csv_path.exists():
        images.claim(SETTINGS)
        rng = torch.Generator().manual_seed(0)
        rows = [{"task": i, "place": 0, "target": f"{i}.png"} for i in range(8)]
        images.append(0, rows, torch.randn(8, 3, generator=rng))
        images.merge()
    results.claim(SETTINGS)
    rng = torch.Generator().manual_seed(len(method))
    for task in tasks:
        rows = []
        for place in range(places):
            group = ("60" if task % 2 else "0") if novel else ""
            facts = {"task": task, "place": place, "source": f"{task}.png", "target": f"{(task + place) % 8}.png"}
            facts |= {"person": task // 2, "group": group, "yaw": "0", "failed": ""}
            rows.append(facts | {m: repr(value(method, m, task, place, shift)) for m in METRICS})
        results.append(0, rows, torch.randn(places, 3, generator=rng) + shift)
    results.merge()
    write_sets(results, images, [2, 1], [tasks, [0, 1, 2, 5]])
    hours = {"seconds": 1800.0, "inversions": len(tasks), "threads": 1, "devices": ["a CPU"]}
    results.cost_path.write_text(json.dumps(hours))
    if not novel:
        seconds = {"time": len(method) + shift, "timed_images": 2, "warm_up": 1, "threads": 1, "devices": ["a CPU"]}
        seconds |= {"together": "once"}
        known = {"pti": {"iterations_at_most": {"code": 450, "generator": 350}}, "psp": {"time_encode": 0.25}}
        extra = known.get(method, {})
        (folder / f"{method}.time.json").write_text(json.dumps(seconds | {"torch": "2"} | extra))


def measured(
    root: Path, number: int, *, absent: Sequence[str] = (), partial: Sequence[str] = ()
) -> dict[str, Measured]:
    """Every row of a table but `absent`; methods of `partial` have tasks 0, 1, 2 and 5 alone."""
    rows: dict[str, Measured] = {name: {} for name in TABLES[number].rows}
    for name, source in SOURCES[number].items():
        if name not in absent:
            rows[name] = {}
            for protocol in protocols_of(TABLES[number]):
                folder = root / source.runs / protocol
                tasks = (0, 1, 2, 5) if source.method in partial else range(8)
                if not (folder / f"{source.method}.csv").exists():
                    store(folder, source.method, tasks=tasks, novel=protocol == "novel_view")
                rows[name] = {**rows[name], protocol: [read_stored(folder, source.method)]}
    return rows


def cells_of(whole: dict[str, Any], method: str, part: str = "rows") -> dict[str, dict[str, Any]]:
    return next(row["values"] for row in whole[part] if row["method"] == method)


def test_cells_are_those_computed_by_hand(tmp_path: Path) -> None:
    rows = measured(tmp_path, 1)
    whole = json.loads(json.dumps(table_json(TABLE_1, rows, {}, HOW, resamples=50), allow_nan=False))
    ours = cells_of(whole, "Ours")
    assert list(ours) == [c.name for c in TABLE_1.columns]
    mse = [value("full", "mse", task, 0) for task in range(8)]
    assert ours["MSE"]["ours"] == pytest.approx(sum(mse) / 8)
    assert (ours["MSE"]["paper"], ours["MSE"]["paper_printed"]) == (0.0301, "0.0301")
    expected = mean_interval(torch.tensor(mse), torch.arange(8) // 2, num=50)
    assert (ours["MSE"]["low"], ours["MSE"]["high"]) == pytest.approx((expected.low, expected.high))
    side = [value("full", "geo", task, place) for task in (1, 3, 5, 7) for place in (0, 1)]
    assert ours["Geo60"]["ours"] == pytest.approx(sum(side) / 8) and ours["Geo60"]["num"] == 8
    measured_time = {"ours": 4.0, "low": None, "high": None, "spread": None, "num": 2}
    assert ours["Time"] == measured_time | {"paper": 0.2262, "paper_printed": "0.2262"}
    folder = rows["Ours"]["novel_view"][0].folder
    (stored, features), (names, vectors) = (
        Results(folder, name, columns, width=3, places=places).read()
        for name, columns, places in (("full", [*COLUMNS, *METRICS, "failed"], 2), ("images", ["target"], 1))
    )
    front = [i for i, row in enumerate(stored) if row["group"] == "0"]
    named = {row["target"]: vector for row, vector in zip(names, vectors, strict=True)}
    real = torch.stack([named[stored[i]["target"]] for i in front])
    assert ours["FID0"]["ours"] == pytest.approx(frechet_distance(real[:, :2], features[front, :2]))
    assert (ours["FID0"]["low"], ours["FID0"]["num_real"], ours["FID0"]["num_distinct"]) == (None, 8, 8)
    beside = next(row["extra"] for row in whole["rows"] if row["method"] == "Ours")["fid_beside0"]
    assert beside["ours"] == pytest.approx(frechet_distance(real[:, 2:], features[front, 2:]))
    assert whole["protocol"]["novel_view"]["groups"]["60"]["num_persons"] == 4
    assert not whole["subset_rows"]


def test_differences_are_paired(tmp_path: Path) -> None:
    whole = table_json(TABLE_3, measured(tmp_path, 3), {}, HOW, resamples=50)
    assert not any(entry["column"] in ("FID", "Time") for entry in whole["differences"])
    store(tmp_path / "other", "full", shift=0.25)
    rows = measured(tmp_path, 3)
    rows["w/ AFA"] = {"input_view": [read_stored(tmp_path / "other", "full")]}
    whole = table_json(TABLE_3, rows, {}, HOW, resamples=50)
    found = {entry["column"]: entry for entry in whole["differences"]}
    assert set(found) == {"PSNR", "SSIM", "MSE", "LPIPS", "ID", "Geo", "id_independent", "depth", "ms_ssim"}
    assert (found["PSNR"]["first"], found["PSNR"]["second"]) == ("w/ AFA", "w/ conv")
    ends = [found["PSNR"][key] for key in ("mean", "low", "high")]
    assert ends == pytest.approx([0.25] * 3)  # the same gain on every image
    assert found["PSNR"]["by_run"] == pytest.approx([0.25])
    assert [found["PSNR"][key] for key in ("median", "below", "above")] == pytest.approx([0.25, 0.0, 1.0])


def test_runs_are_averaged_and_their_spread_is_told(tmp_path: Path) -> None:
    rows = measured(tmp_path, 3)
    store(tmp_path / "second", "full", shift=0.5)
    first = rows["w/ AFA"]["input_view"][0]
    rows["w/ AFA"] = {"input_view": [first, read_stored(tmp_path / "second", "full")]}
    whole = table_json(TABLE_3, rows, {}, HOW, resamples=50)
    found, single = cells_of(whole, "w/ AFA")["ID"], cells_of(whole, "w/ conv")["ID"]
    assert found["ours"] == pytest.approx(single["ours"] + 0.25) and single["spread"] is None
    assert found["spread"] == pytest.approx(0.5 / 2**0.5)
    assert found["low"] == pytest.approx(single["low"] + 0.25)
    page = markdown_page(TABLE_3, whole)
    assert "± is the standard deviation over runs" in page and f"± {0.5 / 2**0.5:.4f} [" in page


def test_what_one_run_could_not_measure_is_left_out_of_all_runs(tmp_path: Path) -> None:
    rows = measured(tmp_path, 3)
    store(tmp_path / "second", "full", shift=0.5)
    first, second = rows["w/ AFA"]["input_view"][0], read_stored(tmp_path / "second", "full")
    second.rows[3] |= {"id": "", "failed": "id"}
    rows["w/ AFA"] = {"input_view": [first, second]}
    whole = table_json(TABLE_3, rows, {}, HOW, resamples=50)
    found = cells_of(whole, "w/ AFA")["ID"]
    kept = [value("full", "id", task, 0) for task in range(8) if task != 3]
    assert found["num"] == 7 and found["ours"] == pytest.approx(sum(kept) / 7 + 0.25)
    gaps = {entry["column"]: entry for entry in whole["differences"]}
    assert (gaps["ID"]["num"], gaps["PSNR"]["num"]) == (7, 8)
    assert gaps["ID"]["by_run"] == pytest.approx([0.0, 0.5])  # two runs against one
    assert whole["protocol"]["input_view"]["groups"]["input"]["failed"] == {"w/ AFA": 1}
    assert "rows with a number that could not be measured: w/ AFA 1." in markdown_page(TABLE_3, whole)


def test_a_page_says_first_what_its_rows_are_of(tmp_path: Path) -> None:
    whole = table_json(TABLE_3, measured(tmp_path, 3), {}, HOW, resamples=50)
    first = markdown_page(TABLE_3, whole).split("\n\n")[0]
    assert "procedural heads (the mini world), the paper's of photographs" in first
    assert "Fréchet distance of vgg features, not of Inception's" in first
    whole["protocol"]["world"] = "full"
    whole["protocol"]["input_view"]["metrics"]["features"] = "inception"
    assert "draws from the paper's data sets" in data_note(whole) and "Inception" not in data_note(whole)


def test_differences_of_the_independent_network_are_shown(tmp_path: Path) -> None:
    page = markdown_page(TABLE_3, table_json(TABLE_3, measured(tmp_path, 3), {}, HOW, resamples=50))
    gaps = next(line for line in page.splitlines() if line.startswith("| First | Second"))
    assert "ID (independent), input view | depth error, input view" in gaps and "MS-SSIM" not in gaps


def test_all_methods_are_shown_on_the_inputs_of_a_subset(tmp_path: Path) -> None:
    whole = table_json(TABLE_1, measured(tmp_path, 1, partial=["pti"]), {}, HOW, resamples=50)
    assert cells_of(whole, "Ours")["MSE"]["num"] == 8 and cells_of(whole, "PTI")["MSE"]["num"] == 4
    subset = cells_of(whole, "Ours", "subset_rows")
    expected = [value("full", "mse", task, 0) for task in (0, 1, 2, 5)]
    assert subset["MSE"]["ours"] == pytest.approx(sum(expected) / 4)
    assert subset["LPIPS60"]["num"] == 4  # tasks 1 and 5, two views each
    assert (subset["FID"]["num"], subset["FID60"]["num"]) == (4, 4)
    extra = next(row for row in whole["subset_rows"] if row["method"] == "Ours")["extra"]
    assert extra["ms_ssim"]["num"] == 4 and extra["ms_ssim"]["ours"] != whole["rows"][-1]["extra"]["ms_ssim"]["ours"]
    assert extra["kid"]["num_features"] == 2 and "num_features" not in extra["fid_beside"]  # those are FID's
    pairs = {(e["first"], e["second"], e["column"]): e["num"] for e in whole["differences"]}
    assert pairs["Ours", "PTI", "MSE"] == 4 and pairs["Ours", "pSp-3D", "MSE"] == 8
    page = markdown_page(TABLE_1, whole)
    assert "PTI is measured on 4 of 8 inputs (input view) and 4 of 8 inputs (novel view)" in page
    assert "All methods on the inputs that they share: 4 of the input view and 4 of the novel view." in page
    assert "**Columns that the paper does not have, on the inputs that all methods share.**" in page
    assert "at most 450 iterations on the code and 350 iterations on the generator" in page
    assert "PyTorch 2; its parts, in a pass of their own: encode 0.25 s." in page
    table = list(csv.DictReader(io.StringIO(csv_page(TABLE_1, whole))))
    assert [row["source"] for row in table[28:31]] == ["shared_measured", "shared_low", "shared_high"]
    assert float(table[-3]["MSE"]) == subset["MSE"]["ours"] and len(table) == 28 + 21


def test_the_page_has_bold_bests_footnotes_and_missing_rows(tmp_path: Path) -> None:
    rows = measured(tmp_path, 1, absent=["Pose Opt."])
    missing = {"Pose Opt.": "no camera.safetensors: `python scripts/train_camera.py`"}
    whole = table_json(TABLE_1, rows, missing, HOW, resamples=50)
    page = markdown_page(TABLE_1, whole)
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| encoder")]
    shown = {line[1]: line[3] for line in lines if line[2].startswith("measured")}
    assert {name for name, cell in shown.items() if cell.startswith("**")} == {"pSp-3D", "e4e-3D"}  # names of three
    low, high = (format(cells_of(whole, "pSp-3D")["MSE"][key], ".4f") for key in ("low", "high"))
    assert shown["pSp-3D"] == f"**{cells_of(whole, 'pSp-3D')['MSE']['ours']:.4f}** [{low}, {high}]"
    assert next(r for r in whole["rows"] if r["method"] == "Pose Opt.")["status"] == "not run"
    assert "Pose Opt. was not run: no camera.safetensors: `python scripts/train_camera.py`." in page
    assert "Printed so: 0.2203 in Table 2" in page and "LPIPS: poor." in page
    assert "FID: 8 shown against 8 real images (8 distinct), 2 features; PTI, IDE-3D, pSp-3D" in page
    assert "Measuring took 6.0 hours on a CPU, 1 threads" in page  # 6 rows, half an hour for each of two protocols
    assert "Novel views, yaw 0°: LPIPS ↓ |" in page and "| Ours | e4e-3D |" in page
    assert "Ours: full" in page and "ID (independent), yaw ±60°" in page
    table = list(csv.DictReader(io.StringIO(csv_page(TABLE_1, whole))))
    assert [row["source"] for row in table[:4]] == ["paper", "measured", "low", "high"] and len(table) == 28
    assert float(table[-3]["MSE"]) == cells_of(whole, "Ours")["MSE"]["ours"] and table[-4]["Time"] == "0.2262"
    assert table[5]["MSE"] == ""  # Pose Opt. was not run
    html_page(TABLE_1, whole, tmp_path / "table.html")
    text = (tmp_path / "table.html").read_text()
    assert "<b>" in text and "**" not in text and "<code>python scripts/train_camera.py</code>" in text


def test_times_of_several_passes_are_marked_and_not_compared(tmp_path: Path) -> None:
    rows = measured(tmp_path, 1)
    page = markdown_page(TABLE_1, table_json(TABLE_1, rows, {}, HOW, resamples=50))
    assert "Input view: Time (s) ↓ |" in page and "one pass" not in page
    path = tmp_path / "full" / "input_view" / "full.time.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"together": "later"}))
    again = measured(tmp_path, 1)
    page = markdown_page(TABLE_1, table_json(TABLE_1, again, {}, HOW, resamples=50))
    assert "Input view: Time (s) ↓ † |" in page and "† times were not all taken in one pass" in page
    path.write_text(json.dumps({"timed_images": 0, "together": "once"}))  # all of them diverged
    whole = table_json(TABLE_1, measured(tmp_path, 1), {}, HOW, resamples=50)
    assert cells_of(whole, "Ours")["Time"]["ours"] is None and "Time of Ours:" not in markdown_page(TABLE_1, whole)


def test_a_table_without_times_says_nothing_of_them(tmp_path: Path) -> None:
    rows = measured(tmp_path, 3)
    path = tmp_path / "afa" / "input_view" / "full.time.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"together": "later"}))
    assert "one pass" not in markdown_page(TABLE_3, table_json(TABLE_3, measured(tmp_path, 3), {}, HOW, resamples=50))
    assert rows.keys() == {"w/ conv", "w/ AFA"}


def test_a_group_without_inputs_is_empty(tmp_path: Path) -> None:
    rows = {name: {"novel_view": runs["novel_view"]} for name, runs in measured(tmp_path, 2).items()}
    for runs in rows.values():
        for stored in runs["novel_view"]:
            stored.rows[:] = [row for row in stored.rows if row["group"] == "60"]
    whole = table_json(TABLE_2, rows, {}, HOW, resamples=50)
    ours = cells_of(whole, "Ours")
    assert ours["ID60"]["ours"] is not None and ours["ID0"]["ours"] is None
    assert not any(
        entry["column"].endswith("0") and not entry["column"].endswith("60") for entry in whole["differences"]
    )


def test_results_of_other_images_are_refused(tmp_path: Path) -> None:
    rows = measured(tmp_path, 3)
    rows["w/ conv"]["input_view"][0].settings["images"] = {"sha256": "1"}
    with pytest.raises(ValueError, match=r"differ in images, so that their numbers do not compare"):
        table_json(TABLE_3, rows, {}, HOW, resamples=50)


def test_what_is_not_stored_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"full\.csv does not exist; measure full first"):
        read_stored(tmp_path, "full")


def test_methods_of_other_generators_are_refused(tmp_path: Path) -> None:
    rows = measured(tmp_path, 3)
    rows["w/ conv"]["input_view"][0].settings["generator"] = "another"
    with pytest.raises(ValueError, match="differ in generator"):
        table_json(TABLE_3, rows, {}, HOW, resamples=50)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_printed_row_has_a_source(number: int) -> None:
    assert list(SOURCES[number]) == list(TABLES[number].rows)


def test_columns_know_their_meters() -> None:
    meters = meters_of(TABLE_2, SETTINGS["metrics"])
    assert (meters["LPIPS60"], meters["FID0"], meters["fid_beside0"]) == ("lpips", "fd_vgg", "fd_mini")
    assert meters["id_independent0"] == "identity_independent"
    assert "PSNR60" not in meters and "Geo0" not in meters
    others = SETTINGS["metrics"] | {"lpips": "vgg", "features": "inception", "identity": "arcface"}
    others |= {"features_beside": "none"}
    assert set(meters_of(TABLE_3, others)) == {"id_independent"}
    assert [split_column(name) for name in ("id_independent60", "MSE")] == [("id_independent", "60"), ("mse", "")]
