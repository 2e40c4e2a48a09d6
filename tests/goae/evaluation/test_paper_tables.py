"""The paper's tables: sums and spot values taken from the paper by hand, consistency, and how they are printed."""

import math
from decimal import Decimal

import pytest

from goae.evaluation.paper_tables import TABLE_1, TABLE_2, TABLE_3, TABLES, PaperTable, best_methods, markdown_table

# Sums of the printed rows and columns, taken over the paper's text and not over the module.
ROW_SUMS = {
    1: "259.6076 432.3632 189.8563 165.6806 147.7785 140.4587 126.5279",
    2: "174.0997 163.0700 154.8713 151.3684 147.16252 149.0274",
    3: "46.5010 42.0512",
}
COLUMN_SUMS = {
    1: (
        "0.3915 1.2204 194.7 5.5802 0.8538 335.5471 "
        "2.0933 507.3 3.981 1.0607 "
        "1.7537 402.2 4.588 1.0031"
    ),
    2: (
        "121.65 3.5991 0.3031 1.5273 332.2 3.9225 0.6728 "
        "124.77 3.5788 0.24172 1.4871 340.7 4.2268 0.7201"
    ),
    3: "41.51 1.3041 0.3465 0.3008 43.2 1.6830 0.2078",
}  # fmt: skip
SPOTS = [
    (TABLE_1, "PTI", "Time", "115.2"),
    (TABLE_1, "Pose Opt.", "FID60", "132"),
    (TABLE_1, "Pose Opt.", "Time", "219.7"),
    (TABLE_1, "IDE-3D", "LPIPS60", "0.3317"),
    (TABLE_1, "e4e-3D", "Geo0", "0.1305"),
    (TABLE_1, "Ours-w+", "LPIPS60", "0.2303"),
    (TABLE_1, "Ours", "Time", "0.2262"),
    (TABLE_2, "w/ D_Wc, w/ L_BG", "LPIPS60", "0.2203"),
    (TABLE_2, "w/o occlusion-aware", "PSNR0", "20.26"),
    (TABLE_2, "w/o occlusion-aware", "MSE0", "0.03202"),
    (TABLE_2, "Ours", "PSNR0", "22.13"),
    (TABLE_3, "w/ AFA", "MSE", "0.301"),
    (TABLE_3, "w/ conv", "Geo", "0.1094"),
]
TABLE_IDS = pytest.mark.parametrize("number", [1, 2, 3])


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


@TABLE_IDS
def test_T16_rows_and_columns_add_up_to_the_papers(number: int) -> None:
    table = TABLES[number]
    assert [sum(map(Decimal, row)) for row in table.rows.values()] == [Decimal(s) for s in ROW_SUMS[number].split()]
    columns = zip(*table.rows.values(), strict=True)
    assert [sum(map(Decimal, column)) for column in columns] == [Decimal(s) for s in COLUMN_SUMS[number].split()]


@pytest.mark.parametrize(("table", "method", "column", "printed"), SPOTS)
def test_T16_cells_are_as_printed(table: PaperTable, method: str, column: str, printed: str) -> None:
    assert table.printed(method, column) == printed


@TABLE_IDS
def test_T16_tables_are_rectangular_and_every_row_has_one_category(number: int) -> None:
    table = TABLES[number]
    assert all(len(row) == len(table.columns) for row in table.rows.values())
    assert len({c.name for c in table.columns}) == len(table.columns)
    assert [m for methods in table.categories.values() for m in methods] == list(table.rows)
    for note in table.footnotes:
        assert all(table.printed(*cell) for cell in note.cells)


def test_T16_columns_stand_in_the_papers_groups() -> None:
    groups = [c.group for c in TABLE_1.columns]
    assert groups == ["Input view"] * 6 + ["Novel views, yaw ±60°"] * 4 + ["Novel views, yaw 0°"] * 4
    assert [c.heading for c in TABLE_1.columns if c.group == "Input view"][-1] == "Time (s)"
    assert {c.name for c in TABLE_1.columns if c.better == "higher"} == {"ID", "ID60", "ID0"}
    assert {c.name for c in TABLE_3.columns if c.better == "higher"} == {"PSNR", "SSIM", "ID"}


def psnr_pairs() -> list[tuple[PaperTable, str, str]]:
    pairs = [(TABLE_2, method, suffix) for method in TABLE_2.rows for suffix in ("60", "0")]
    return pairs + [(TABLE_3, method, "") for method in TABLE_3.rows]


@pytest.mark.parametrize(("table", "method", "suffix"), psnr_pairs())
def test_T16_psnr_lies_above_that_of_the_mean_mse_or_is_flagged(table: PaperTable, method: str, suffix: str) -> None:
    """Jensen: mean(10 log10(4 / MSE)) >= 10 log10(4 / mean(MSE)), peak 2; pairs that agree lie 0.2 to 1.6 dB above."""
    psnr, mse = table.value(method, f"PSNR{suffix}"), table.value(method, f"MSE{suffix}")
    above = psnr - 10 * math.log10(4 / mse)
    flagged = table.is_flagged(method, f"PSNR{suffix}") or table.is_flagged(method, f"MSE{suffix}")
    assert (0.2 < above < 1.6) is not flagged


def test_T16_suspected_values_satisfy_the_bound() -> None:
    suspected = {cell: note.suspected for t in (TABLE_2, TABLE_3) for note in t.footnotes for cell in note.cells}
    for psnr, mse in (
        (suspected["w/o occlusion-aware", "PSNR0"], suspected["w/o occlusion-aware", "MSE0"]),
        (TABLE_3.printed("w/ AFA", "PSNR"), suspected["w/ AFA", "MSE"]),
    ):
        assert psnr is not None and mse is not None
        assert 0.2 < float(psnr) - 10 * math.log10(4 / float(mse)) < 1.6


def test_T16_shared_columns_of_tables_1_and_2_agree_but_for_the_flagged_cell() -> None:
    shared = [c.name for c in TABLE_1.columns if c.group != "Input view"]
    for first, second in (("Ours", "Ours"), ("Ours-w+", "w/ D_Wc, w/ L_BG")):
        # Table 1 prints the identity with three digits
        differ = [n for n in shared if abs(TABLE_1.value(first, n) - TABLE_2.value(second, n)) > 5.01e-4]
        assert differ == [n for n in shared if TABLE_1.is_flagged(first, n) and TABLE_2.is_flagged(second, n)]
    assert TABLE_1.is_flagged("Ours-w+", "LPIPS60")


def test_T16_best_is_computed_within_each_category() -> None:
    assert TABLE_1.best("MSE") == {"PTI", "Ours"}
    assert TABLE_1.best("ID") == {"PTI", "Ours"}
    assert TABLE_1.best("Time") == {"PTI", "IDE-3D"}
    assert TABLE_1.best("Geo60") == {"PTI", "Ours-w+"}
    assert TABLE_2.best("FID0") == {"w/ D_Wc, w/ L_BG", "w/o occlusion-aware"}
    assert TABLE_3.best("MSE") == {"w/ AFA"}  # printed 0.301, where 0.0301 was meant
    assert TABLE_2.best("PSNR0") == {"w/ D_Wc, w/ L_BG", "w/o occlusion-aware"}  # 20.26, where 22.26 was meant


def test_ties_share_the_best_and_missing_values_take_no_part() -> None:
    values = {"a": 1.0, "b": 1.0, "c": 2.0, "d": None}
    assert best_methods(values, {"x": ("a", "b", "c", "d")}, "lower") == {"a", "b"}
    assert best_methods(values, {"x": ("a", "b"), "y": ("c", "d", "e")}, "higher") == {"a", "b", "c"}
    assert best_methods({}, {"x": ("a",)}, "lower") == set()


def test_T16_a_measured_row_stands_below_every_printed_one() -> None:
    measured = {"w/ AFA": {"MSE": 0.04214, "PSNR": 20.555, "FID": None}, "w/ conv": {"MSE": 0.05}}
    text = markdown_table(TABLE_3, measured)
    lines = [cells(line) for line in text.splitlines() if line.startswith("|")]
    heading, _, conv_paper, conv, afa_paper, afa = lines
    assert heading[3:6] == ["Input view: PSNR ↑", "Input view: SSIM ↑", "Input view: MSE ↓"]
    assert {len(line) for line in lines} == {10}
    assert conv_paper == [
        *["F space", "w/ conv", "paper", "19.67", "0.5962", "0.0455"],
        *["0.1766", "25.1", "0.8033", "0.1094"],
    ]
    assert conv == ["F space", "w/ conv", "measured", "–", "–", "0.0500", "–", "–", "–", "–"]
    assert afa_paper == [
        *["F space", "w/ AFA", "paper", "**21.84**", "**0.7079**", "**0.301**<sup>1</sup>"],
        *["**0.1242**<sup>2</sup>", "**18.1**<sup>2</sup>", "**0.8797**<sup>2</sup>", "**0.0984**<sup>2</sup>"],
    ]
    assert afa[2:] == ["measured", "**20.55**", "–", "**0.0421**", "–", "–", "–", "–"]
    assert "<sup>1</sup> Printed so; probably 0.0301, which bold goes by: " in text


def test_columns_with_an_uninformative_meter_are_marked_and_have_no_best() -> None:
    measured = {"w/ AFA": {"MSE": 0.04, "PSNR": 20.5}, "w/ conv": {"MSE": 0.05, "PSNR": 19.5}}
    lines = [cells(x) for x in markdown_table(TABLE_3, measured, uninformative=["MSE"]).splitlines() if x[:1] == "|"]
    assert lines[0][3:6] == ["Input view: PSNR ↑", "Input view: SSIM ↑", "Input view: MSE ↓ †"]
    assert (lines[5][3], lines[5][5]) == ("**20.50**", "0.0400") and lines[4][5] == "**0.301**<sup>1</sup>"


def test_T16_nothing_measured_prints_dashes() -> None:
    text = markdown_table(TABLE_1, {})
    lines = [cells(line) for line in text.splitlines() if line.startswith("|")]
    assert [line[2] for line in lines[2:]] == ["paper", "measured"] * 7
    assert all(line[3:] == ["–"] * 14 for line in lines[3::2])


@pytest.mark.parametrize("measured", [{"PTI": {"PSNR": 1.0}}, {"StyleGAN": {}}])
def test_measured_values_without_a_place_are_named(measured: dict[str, dict[str, float | None]]) -> None:
    with pytest.raises(ValueError, match=r"Table 1 has no place for (PTI: PSNR|StyleGAN)"):
        markdown_table(TABLE_1, measured)


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(KeyError, match="Table 1 has no column 'PSNR'"):
        TABLE_1.printed("PTI", "PSNR")
