"""scripts/train_directions.py on a tiny generator: by the mini network's scores, and by a file of scores."""

import csv
import json
from pathlib import Path

import pytest
import torch
from eg3d import checkpoint
from PIL import Image
from tiny import tiny_generator, tiny_goae

from goae.config import DirectionsConfig
from goae.editing.directions import EditConfig, load_direction, load_edit
from goae.extractors.mini import MiniPerception
from goae.models.goae import preset
from goae.runs.train_directions import train_directions
from scripts import run_script

SAMPLING = {"num_samples": 60, "extremes": 20, "batch_size": 20}


@pytest.fixture(scope="module")
def generator_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("directions") / "generator.safetensors"
    checkpoint.save(tiny_generator(), path)
    return str(path)


def overrides(generator_path: str, *more: str) -> list[str]:
    sizes = [f"sampling.{name}={value}" for name, value in SAMPLING.items()]
    return [f"generator_path={generator_path}", "num_measured=8", "device=cpu", *sizes, *more]


def test_the_mini_network_scores(generator_path: str, tmp_path: Path) -> None:
    more = [f"output={tmp_path}", "attributes=[smile,hair_dark]", "+orthogonal.smile=[hair_dark]"]
    assert run_script("train_directions", *overrides(generator_path, *more)) == 0
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{name}.{end}" for name in ("smile", "hair_dark") for end in ("npy", "json", "png")
    }
    smile, dark = (load_direction(tmp_path / f"{name}.npy", num_ws=8, w_dim=32) for name in ("smile", "hair_dark"))
    record = json.loads((tmp_path / "smile.json").read_text())
    assert torch.equal(smile, smile[:1].expand(8, -1))
    assert float(smile[0].norm()) == pytest.approx(record["step"], rel=1e-5) and record["orthogonal_to"] == [
        "hair_dark"
    ]
    assert abs(float(smile[0] @ dark[0])) < 1e-4 * float(smile[0].norm() * dark[0].norm())
    assert set(record["effect"]) == {*MiniPerception().card["attributes"], "identity"}
    assert record["effect"]["identity"] < 1
    assert min(Image.open(tmp_path / "smile.png").size) > 100


def test_a_file_of_scores_gives_the_same_directions(generator_path: str, tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    assert run_script("train_directions", *overrides(generator_path, f"export={heads}")) == 0
    pictures = sorted(heads.glob("*.png"))
    assert len(pictures) == 60
    image = torch.stack([torch.tensor(list(Image.open(p).tobytes())) for p in pictures]).view(60, 32, 32, 3)
    network = MiniPerception()
    with torch.no_grad():
        scores = network.attributes(image.permute(0, 3, 1, 2) / 127.5 - 1)[:, network.card["attributes"].index("age")]
    table = tmp_path / "scores.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["name", "age"], *zip([p.name for p in pictures], scores.tolist(), strict=True)])
    made = {}
    for name, more in {"own": [], "file": [f"codes={heads}", f"scores={table}"]}.items():
        given = overrides(generator_path, "attributes=[age]", f"output={tmp_path / name}", *more)
        assert run_script("train_directions", *given) == 0
        made[name] = load_direction(tmp_path / name / "age.npy", num_ws=8, w_dim=32)
    cosine = torch.cosine_similarity(made["own"][0], made["file"][0], dim=0)
    assert float(cosine) > 0.95  # scores of pictures of 8 bits differ a little
    assert "effect" not in json.loads((tmp_path / "file" / "age.json").read_text())
    with pytest.raises(ValueError, match=r"set sampling\.num_samples=60"):
        config = DirectionsConfig(generator_path=generator_path, codes=str(heads), scores=str(table), device="cpu")
        train_directions(config)


def test_what_cannot_be_is_refused(generator_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    for more, told in (
        ("attributes=[smile,hat]", "attributes has hat; the mini network scores smile"),
        ("+orthogonal.smile=[beard]", "orthogonal names beard"),
        ("codes=somewhere", "give codes= and scores= together"),
    ):
        assert run_script("train_directions", *overrides(generator_path, more)) == 1
        assert told in capsys.readouterr().err


def test_the_official_preset_takes_glasses_off_other_edits(generator_path: str, tmp_path: Path) -> None:
    assert (
        run_script("train_directions", *overrides(generator_path, f"output={tmp_path}", "attributes=[age,glasses]"))
        == 0
    )
    age, glasses = (str(tmp_path / f"{name}.npy") for name in ("age", "glasses"))
    n, g = (load_direction(path, num_ws=8, w_dim=32) for path in (age, glasses))
    paper, official = tiny_goae(), tiny_goae(preset("official"), variant="official")
    young = EditConfig("Young", age, -1.0)
    assert torch.equal(load_edit(young, paper, glasses), -n)
    torch.testing.assert_close(load_edit(young, official, glasses), -n - 0.8 * g)
    assert torch.equal(load_edit(EditConfig("Glasses", glasses, 2.0), official, glasses), 2 * g)
    with pytest.raises(ValueError, match="no glasses direction"):
        load_edit(young, official)
    with pytest.raises(ValueError, match="without slashes"):
        EditConfig("a/b", age)
