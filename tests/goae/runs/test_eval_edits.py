"""scripts/eval_edits.py on a tiny run: what is written, and what is refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from composing import composed_as
from eg3d import checkpoint
from tiny import tiny_goae

from goae.config import EditsConfig, TrainConfig, claim_run
from goae.editing.directions import EditConfig
from goae.loading import save_encoder, save_refiner
from goae.runs.eval_edits import eval_edits


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> EditsConfig:
    folder, goae = tmp_path_factory.mktemp("edits"), tiny_goae()
    checkpoint.save(goae.generator, folder / "generator.safetensors")
    paths = [f"paths.runs={folder}", f"paths.generator={folder / 'generator.safetensors'}"]
    run = composed_as(TrainConfig, "experiment=tiny", "run=tiny", *paths)
    claim_run(run)
    save_encoder(goae.encoder, run.run_dir / "encoder.safetensors")
    save_refiner(goae.afa, goae.config, run.run_dir / "refiner.safetensors")
    np.save(folder / "age.npy", np.linspace(-1, 1, 32, dtype=np.float32))
    small = ["num_images=3", "batch_size=2", "yaws=[-20,0]", "resamples=20", "device=cpu"]
    given = [f"runs={folder}", "run=tiny", f"images={tiny_data}", f"output={folder / 'out' / 'edits.json'}"]
    made = composed_as(EditsConfig, *given, *small, name="eval_edits")
    made.edits = [EditConfig(label, str(folder / "age.npy"), alpha) for label, alpha in (("Young", -2.0), ("Old", 2.0))]
    return made


def test_every_edit_is_measured_from_every_view(config: EditsConfig) -> None:
    written = json.loads(eval_edits(config).read_text())
    assert written["protocol"]["num_images"] == 3 and set(written["edits"]) == {"Young", "Old"}
    for edit in written["edits"].values():
        assert edit["attribute"] == "age" and set(edit["views"]) == {"-20", "0"}
        assert all(view["change"] != 0 and view["identity"] < 1 for view in edit["views"].values())
    young, old = (written["edits"][name] for name in ("Young", "Old"))
    assert young["alike_unedited"] == old["alike_unedited"] and young["alike"] != old["alike"]


def test_a_direction_is_named_after_its_attribute(config: EditsConfig) -> None:
    with pytest.raises(ValueError, match=r"the edit Wig is 1 along hair\.npy; expected .*hair_length"):
        eval_edits(dataclasses.replace(config, edits=[EditConfig("Wig", "hair.npy")]))


def test_labels_are_told_apart() -> None:
    with pytest.raises(ValueError, match=r"edits has the labels \['Young', 'Young'\]"):
        EditsConfig(edits=[EditConfig("Young", "age.npy"), EditConfig("Young", "age.npy", -1.0)])
