"""The figures that show edits: Fig. 1, 10 and 17 to 19."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from goae.camera.level import level_label
from goae.config import FiguresConfig
from goae.editing.directions import load_edit
from goae.inversion import Inversion, Inverter
from goae.runs.inversion_figures import Subject, check_cats, part_of, subjects, write
from goae.runs.setup import open_run, run_inverter
from goae.viz.sheet import sheet

NUM_TEASER, NUM_EDITED = 2, 3  # subjects of Fig. 1 and of Fig. 10


def teaser(config: FiguresConfig) -> Path:
    """Fig. 1: inputs, their inversions from further cameras, and edits."""
    inverter = run_inverter(open_run(config, config.ours))
    deltas = edit_deltas(config, inverter)
    rows, labels = [], []
    for number, subject in list(zip(config.subjects, subjects(config), strict=True))[:NUM_TEASER]:
        inversion = inverter.invert(subject.image, subject.c)
        own = inverter.reconstruct(inversion).image[0]
        edits = [inverter.reconstruct(inverter.edit(inversion, delta)).image[0] for delta in deltas.values()]
        rows.append([subject.image[0], own, *novel_views(config, inverter, inversion, subject), *edits])
        labels.append(f"image {number}")
    columns = ["input", "inversion", *(f"{yaw:+g}°" for yaw in config.novel_yaws), *deltas]
    return write(config, sheet(rows, columns, labels, caption="Fig. 1: inversion, novel views and edits."))


def edits(config: FiguresConfig) -> Path:
    """Fig. 10, 17 and 18: inversions and their edits from several cameras; 17 and 18 have half of the subjects each."""
    part = slice(NUM_EDITED) if config.figure == 10 else part_of(config)
    if not config.subjects[part]:
        raise ValueError(f"subjects is {config.subjects}; expected at least two, one for each of Fig. 17 and 18")
    return draw_edits(config, part)


def cat_edits(config: FiguresConfig) -> Path:
    """Fig. 19: cats, their inversions and edits from several cameras."""
    check_cats(config)
    return draw_edits(config, slice(None))


def draw_edits(config: FiguresConfig, part: slice) -> Path:
    """Rows of each of these subjects: its inversion, and each edit."""
    inverter = run_inverter(open_run(config, config.ours))
    deltas = edit_deltas(config, inverter)
    rows: list[list[Tensor | None]] = []
    labels = []
    for number, subject in list(zip(config.subjects, subjects(config), strict=True))[part]:
        inversion = inverter.invert(subject.image, subject.c)
        edited = {label: inverter.edit(inversion, delta) for label, delta in deltas.items()}
        for label, state in {"inversion": inversion, **edited}.items():
            first = subject.image[0] if state is inversion else None
            own = inverter.reconstruct(state).image[0]
            rows.append([first, own, *novel_views(config, inverter, state, subject)])
            labels.append(f"image {number}\n{label}" if state is inversion else label)
    columns = ["input", "source view", *(f"{yaw:+g}°" for yaw in config.novel_yaws)]
    told = ", ".join(f"{edit.label}: {edit.alpha:+g} along {Path(edit.direction).stem}" for edit in config.edits)
    return write(config, sheet(rows, columns, labels, caption=f"Fig. {config.figure}: edits of one inversion. {told}."))


def novel_views(config: FiguresConfig, inverter: Inverter, inversion: Inversion, subject: Subject) -> list[Tensor]:
    """Images (3, H, H) from `novel_yaws`."""
    cameras = [level_label(inverter.goae.generator, yaw, subject.c) for yaw in config.novel_yaws]
    return [inverter.render(inversion, c).image[0] for c in cameras]


def edit_deltas(config: FiguresConfig, inverter: Inverter) -> dict[str, Tensor]:
    """label -> what the edit adds to ws, (num_ws, w_dim). Raises: ValueError if there is none."""
    if not config.edits:
        raise ValueError("edits is empty; name some, directions of scripts/train_directions.py for example")
    return {edit.label: load_edit(edit, inverter.goae, config.glasses) for edit in config.edits}


EDIT_FIGURES: dict[int, Callable[[FiguresConfig], Path]] = {
    1: teaser,
    10: edits,
    17: edits,
    18: edits,
    19: cat_edits,
}
