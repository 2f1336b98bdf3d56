"""The page of findings is what the committed rows say, and README says nothing else."""

import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made():
    sys.path.insert(0, str(ROOT / "analyses"))
    yield import_module("make_findings")
    sys.path.remove(str(ROOT / "analyses"))
    for path in (ROOT / "analyses").glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_the_page_is_made_of_the_committed_rows(made):
    """Where it is not: python analyses/make_findings.py."""
    assert made.page(ROOT / "figures") == PAGE


def test_no_number_on_the_page_is_missing_or_unformatted(made):
    for text in ("nan", "None", "{{", "}}", "np.float64"):
        assert not re.search(rf"(?<![a-z]){re.escape(text)}(?![a-z])", PAGE), text


def test_every_claim_has_its_anchor_its_rule_and_a_verdict(made):
    for key, claim in made.CLAIMS.items():
        section = PAGE.partition(f"\n### {key.capitalize()}\n")[2].partition("\n#")[0]
        assert f"**{claim.said}** {claim.source}" in section
        assert f"*Rule*: {claim.rule}" in section
        assert re.search(r"\*\*(partly )?(confirmed|contradicted)\*\*|\*\*depends\*\*|\*\*undecided\*\*", section), key
        for figure in re.findall(r"\(\.\./(figures/[^)]*)\)", section):
            assert (ROOT / figure).is_file(), figure


def test_numbers_of_the_readme_stand_on_the_page():
    """Rounded there, to two digits or one: the page has the one that it is rounded from."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What was found")[2].partition("\n## ")[0]
    known = [float(each) for each in re.findall(r"(?<![\w.])-?\d+\.\d+", PAGE.replace("−", "-"))]
    said = list(re.finditer(r"(?<![\w.])-?\d+\.(\d+)", section.replace("−", "-")))
    assert said
    for found in said:
        half = 0.5000001 * 10.0 ** -len(found[1])
        assert any(abs(each - float(found[0])) <= half for each in known), found[0]


@pytest.mark.parametrize(
    ("method", "raced"), [("at_best_rate", "recipe, followed density"), ("at_one_rate", "followed draws")]
)
def test_speedups_across_races_and_at_one_rate_are_ratios_of_crossings(made, method, raced):
    """Digits: 750 steps are the length of both entries that is fastest."""
    standard, free = (xr.open_dataset(ROOT / f"figures/digits/race-{name}.nc") for name in ("standard", "pilot-free"))
    own = {"at_best_rate": standard, "at_one_rate": free}[method].sel(contestant=f"{raced}, 750 steps", target=0.6)
    if method == "at_best_rate":
        control = free.sel(contestant="uniform", target=0.6)
    else:  # of the annealed runs at the rate that has no mark
        plain = [str(each) for each in free.contestant.values if ", rate" not in str(each)]
        annealed = free.sel(
            contestant=[each for each in plain if "uniform + " in each and "closed" not in each], target=0.6
        )
        annealed = annealed.isel(
            contestant=(annealed["role"] == "annealed").values & ~annealed["censored"].any("seed").values
        )
        control = annealed.isel(contestant=int(np.log(annealed["crossing"]).mean("seed").argmin()))
    ratio = float(np.exp(np.log(control["crossing"] / own["crossing"]).mean()))
    assert getattr(made.Findings(ROOT / "figures"), method)("digits", raced).startswith(f"{ratio:.2f} [")


def test_goals_on_fresh_seeds_are_ratios_of_crossings_on_seeds_that_no_other_race_has(made):
    first, fresh = (
        xr.open_dataset(ROOT / f"figures/fashion-16/race-{name}.nc") for name in ("pilot-free", "fresh-seeds")
    )
    assert not set(first["seed"].values) & set(fresh["seed"].values)
    assert float(first["target_loss"][-1]) == float(fresh["target_loss"][-1])
    by_role = {str(role): fresh.isel(contestant=i) for i, role in enumerate(fresh["role"].values)}
    assert set(by_role) == {"control", "annealed", "matched", "recipe"}
    lines = made.Findings(ROOT / "figures").goals("fresh-seeds")
    for role, words in made.KINDS.items():
        if role in by_role:
            ratio = by_role[role]["crossing"].sel(target=0.6) / by_role["recipe"]["crossing"].sel(target=0.6)
            (line,) = [each for each in lines.splitlines() if each.startswith(f"| {words}, in steps")]
            assert f"{float(np.exp(np.log(ratio).mean())):.2f} [" in line
