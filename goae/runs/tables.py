"""The paper's tables from runs: measure what is missing, then write; and the page of claims."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eg3d.limits import read_json

from goae.config import ProtocolConfig, TablesConfig, TrainConfig, find_run, load_run, run_file
from goae.evaluation.cells import SETS, Measured, split_column
from goae.evaluation.checks import EDITS, Tables
from goae.evaluation.claims import claims_page, read_analyses
from goae.evaluation.meters import footnotes
from goae.evaluation.paper_tables import TABLES, PaperTable
from goae.evaluation.records import read_records
from goae.evaluation.stored import is_complete, read_stored, time_path
from goae.evaluation.table_pages import write_pages
from goae.evaluation.tables import SOURCES, Source, meters_of, protocols_of, table_json
from goae.runs.measure import check_complete, measure
from goae.runs.protocol_inputs import present_settings
from goae.runs.setup import launch
from goae.runs.times import time_together
from goae.runs.training_facts import training_of

if TYPE_CHECKING:  # it takes seconds to import, and a configuration is checked without it
    from lightning_fabric import Fabric

TRAINED = {  # overrides of train.py that make a row's run
    "psp": "method=psp",
    "e4e": "method=e4e",
    "ide3d": "method=ide3d",
    "no_adv_no_bg": "stage=encoder stages.encoder.adv=0 stages.encoder.bg=0",
    "no_adv": "stage=encoder stages.encoder.adv=0",
    "no_bg": "stage=encoder stages.encoder.bg=0",
    "adv_bg": "stage=encoder",
    "conv": "afa.variant=conv",
}
REFINED = ("full", "no_mix")  # methods that need the second stage
CELLS = {  # key of a sweep -> how a run's name tells its value, and all values
    "stages.encoder.adv": (r"-adv([\d.]+)-bg", ["0.0", "0.05"]),
    "stages.encoder.bg": (r"-bg([\d.]+)-seed", ["0.0", "5.0"]),
    "afa.variant": (r"-table3-(\w+)-mix", ["conv", "paper"]),
    "goae.mix.planes": (r"-mix_(\w+)-seed", ["none", "xyz"]),
    "seed": (r"-seed(\d+)$", ["0", "1", "2"]),
}
SWEPT = {"table2": "encoder", "table3": "refiner"}  # sweep -> the stage that it trains


def make_tables(config: TablesConfig) -> list[Path]:
    """Write `table<n>.json`, .md, .csv and .html, `claims.md`, or both; returns what was written."""
    written = []
    if config.table:
        fabric = launch(config)
        whole = make_table(config, fabric)
        if fabric.is_global_zero:
            written += write_pages(TABLES[config.table], whole, config.folder)
        fabric.barrier()
    if config.claims:
        written.append(make_claims(config))
    return written


def make_table(config: TablesConfig, fabric: "Fabric") -> dict[str, Any]:
    """Measure what is missing of a table's rows. Returns: its JSON.

    Raises: ValueError listing what to do for each row without results and weights, unless `partial`.
    """
    table, sources = TABLES[config.table], SOURCES[config.table]
    missing = {name: todo for name, source in sources.items() if (todo := missing_weights(config, table, source))}
    if config.world_name == "mini" and not Path(config.records).exists():
        missing["meters"] = f"{config.records} does not exist: `python scripts/check_meters.py`"
    if missing and not config.partial:
        told = "; ".join(f"{name}: {todo}" for name, todo in missing.items())
        raise ValueError(f"Table {table.number} lacks {told}. To write it without these, give partial=true")
    present = {name: source for name, source in sources.items() if name not in missing}
    found = measurable(config, list(present.values()))
    for protocol in protocols_of(table):
        jobs = [config.protocol_config(protocol, *row) for row in found.items()]
        there = present_settings(jobs[0], fabric.device) if jobs else {}
        for job in jobs:
            measure_missing(job, there, fabric)
    if has_times(table) and config.timing_images and fabric.is_global_zero:
        time_together([config.protocol_config("input_view", *row) for row in found.items()], fabric.device)
    fabric.barrier()
    rows: dict[str, Measured] = {name: {} for name in table.rows}
    for name, source in present.items():
        rows[name] = {
            protocol: [
                read_stored(config.protocol_config(protocol, run, [source.method]).folder, source.method)
                for run in runs_of(config, source)
            ]
            for protocol in protocols_of(table)
        }
    how = {"world": config.world_name, "resamples": config.resamples} | meter_notes(config, rows)
    whole = table_json(table, rows, missing, how, resamples=config.resamples)
    check_subset(whole)
    for entry in whole["rows"] if fabric.is_global_zero else ():  # which writes them
        if entry["method"] in present:
            entry["training"] = training(config, present[entry["method"]])
    return whole


def check_subset(whole: Mapping[str, Any]) -> None:
    """Raises: ValueError for a method without distances of the inputs that all methods share."""
    for row in whole["subset_rows"]:
        absent = [c for c, cell in row["values"].items() if split_column(c)[0] in SETS and cell["ours"] is None]
        if absent:
            raise ValueError(
                f"{row['method']} has no {', '.join(absent)} of the inputs that all methods share: the subset "
                f"(subset.*) is another than when it was measured. Go back to that one, or delete its files in "
                f"measured/*/*/ to measure it again"
            )


def training(config: TablesConfig, source: Source) -> dict[str, list[dict[str, Any]]]:
    """stage -> what training did, of each run of a row: of the stages that its method uses."""
    if source.method == "pti":  # which uses none
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    for name in runs_of(config, source):
        kept = config.protocol_config("input_view", name, [source.method]).folder.parent / "training.json"
        for stage, facts in training_of(find_run(config.runs, name), kept).items():
            if stage == "encoder" or source.method in REFINED:
                found.setdefault(stage, []).append(facts)
    return found


def measure_missing(config: ProtocolConfig, present: dict[str, Any], fabric: "Fabric") -> None:
    """Measure those methods of a run that are not complete, without times; of the others, compare what is there."""
    complete = [name for name in config.methods if is_complete(config.folder, name)]
    missing = [name for name in config.methods if name not in complete]
    fabric.barrier()  # every process has looked before the first one writes
    if complete:
        check_complete(dataclasses.replace(config, methods=complete), present, fabric)
    if missing:
        measure(dataclasses.replace(config, methods=missing, timing_images=0), fabric)


def runs_of(config: TablesConfig, source: Source) -> list[str]:
    """Names of the runs that a row is made of."""
    runs: list[str] = getattr(config.rows, source.runs)
    return runs


def measurable(config: TablesConfig, sources: Sequence[Source]) -> dict[str, list[str]]:
    """Runs whose weights are there -> the methods that rows want of them."""
    found: dict[str, list[str]] = {}
    for source in sources:
        for run in runs_of(config, source):
            methods = found.setdefault(run, [])
            if source.method not in methods and all(f.is_file() for f in wanted_files(config, run, source.method)):
                methods.append(source.method)
    return {run: methods for run, methods in found.items() if methods}


def missing_weights(config: TablesConfig, table: PaperTable, source: Source) -> str:
    """What a row that is not wholly measured lacks, with the command that makes it; empty if nothing."""
    runs = runs_of(config, source)
    if not runs:
        return f"rows.{source.runs} names no run"
    absent: dict[str, list[str]] = {}
    for run in runs:
        folders = [config.protocol_config(p, run, [source.method]).folder for p in protocols_of(table)]
        if is_timed(config, table, run, source.method) and all(
            is_complete(folder, source.method) for folder in folders
        ):
            continue
        for file in wanted_files(config, run, source.method):
            if not file.is_file():
                maker = file.parent.name if file.name == "encoder.safetensors" else run
                absent.setdefault(train_command(config, source.runs, maker, file), []).append(str(file))
    return ", ".join(f"no {' and '.join(files)}: `{command}`" for command, files in absent.items())


def has_times(table: PaperTable) -> bool:
    """Whether one of the columns is the time of an inversion."""
    return any(split_column(column.name)[0] == "time" for column in table.columns)


def is_timed(config: TablesConfig, table: PaperTable, run: str, method: str) -> bool:
    """Whether the time is there, or the table needs none."""
    folder = config.protocol_config("input_view", run, [method]).folder
    return not has_times(table) or not config.timing_images or time_path(folder, method).exists()


def wanted_files(config: TablesConfig, run: str, method: str) -> list[Path]:
    """What a method needs of a run, whose stage 1 may be that of another (`paths.encoder`)."""
    folder = find_run(config.runs, run)
    files = [folder / "config.yaml"]
    elsewhere = load_run(folder, TrainConfig).paths.encoder if files[0].exists() else ""
    files.append(run_file(elsewhere) if elsewhere else folder / "encoder.safetensors")
    if method in REFINED:
        files.append(folder / "refiner.safetensors")
    if method == "pose_opt":
        files.append(regressor_file(config))
    return files


def regressor_file(config: TablesConfig) -> Path:
    """The weights from which Pose Opt. starts."""
    return Path(config.baselines.regressor or "baselines.regressor")


def train_command(config: TablesConfig, key: str, run: str, file: Path) -> str:
    """The command that makes a row's file: the regressor, the whole sweep of its run, or the run by itself."""
    if file == regressor_file(config):
        trained = f"{config.runs}/{config.rows.camera}-seed0/{file.name}"
        return f"python scripts/train_camera.py experiment={config.rows.camera}` and `baselines.regressor={trained}"
    experiment = run.partition("-")[0]
    if sweep := re.match(rf"{experiment}-(table[23])-", run):
        return sweep_command(config, experiment, sweep[1])
    seed = re.search(r"-seed(\d+)$", run)
    words = ["python scripts/train.py", f"experiment={experiment}", TRAINED.get(key, "")]
    words += [f"seed={seed[1]}" if seed and seed[1] != "0" else "", f"run={run}"]
    return " ".join(word for word in words if word)


def sweep_command(config: TablesConfig, experiment: str, sweep: str) -> str:
    """The command that trains those cells of a sweep that rows name and that are not there, and no others."""
    rows, file = dataclasses.asdict(config.rows).values(), f"{SWEPT[sweep]}.safetensors"
    named = {run for row in rows if isinstance(row, list) for run in row if run.startswith(f"{experiment}-{sweep}-")}
    runs = sorted(run for run in named if not (find_run(config.runs, run) / file).exists())
    found = {key: sorted({name for run in runs for name in re.findall(cell, run)}) for key, (cell, _) in CELLS.items()}
    parts = [f'{key}: "{",".join(names)}"' for key, names in found.items() if names and names != CELLS[key][1]]
    grid = f" 'hydra.sweeper.params={{{', '.join(parts)}}}'" if parts else ""
    return f"python scripts/train.py -m experiment={experiment} sweep={sweep}{grid}"


def meter_notes(config: TablesConfig, rows: dict[str, Measured]) -> dict[str, Any]:
    """What check_meters.py says about the meters of the table; of the mini world, whose images it is about."""
    runs = [run for measured in rows.values() for found in measured.values() for run in found]
    if config.world_name != "mini" or not runs:
        return {"uninformative": [], "meter_notes": []}
    meters = meters_of(TABLES[config.table], runs[0].settings["metrics"])
    if not Path(config.records).exists():
        note = "Whether the meters can tell people of these images apart was not checked (scripts/check_meters.py)."
        return {"uninformative": [], "meter_notes": [note]}
    notes = footnotes(read_records(Path(config.records)), dict.fromkeys(meters.values()))
    bad = [column for column, meter in meters.items() if meter in notes]
    return {"uninformative": bad, "meter_notes": list(notes.values())}


def make_claims(config: TablesConfig) -> Path:
    """Write `claims.md` from the folder's tables and edits.json, with the analyses of `claims-analysis.md` if there.

    Raises: FileNotFoundError if there is no table; ValueError for an analysis of something else than a claim or goal.
    """
    paths: dict[int | str, Path] = {number: config.folder / f"table{number}.json" for number in TABLES}
    paths[EDITS] = config.folder / f"{EDITS}.json"
    tables: Tables = {name: read_json(path) for name, path in paths.items() if path.exists()}
    if not tables.keys() - {EDITS}:
        raise FileNotFoundError(
            f"{config.folder} has no table1.json to table3.json; run `python scripts/tables.py table=1`"
        )
    written = config.folder / "claims-analysis.md"
    analyses = read_analyses(written.read_text()) if written.exists() else {}
    path = config.folder / "claims.md"
    path.write_text(claims_page(tables, config.world_name, analyses))
    return path
