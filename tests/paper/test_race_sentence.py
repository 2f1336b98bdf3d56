"""The sentence on whether a recipe was faster, from tables with known speed-ups."""

import pandas as pd
import pytest

from consistency_lab.paper.kinds import recipe_sentence
from consistency_lab.paper.race.table import AGAINST

PREFIXES = ("", "pilot_", "pilot_seconds_")


def row(name, role="recipe", against="annealed", crossing=100.0, **speedups):
    numbers = {
        "contestant": name,
        "role": role,
        "fastest": True,
        "against": AGAINST[against],
        "control": "uniform, annealed",
    }
    numbers |= {"crossing": crossing, "censored": speedups.get("bound") == "at most"}
    for prefix, (value, low, high, bound) in zip(PREFIXES, speedups["told"], strict=True):
        numbers |= {
            f"{prefix}speedup": value,
            f"{prefix}speedup_low": low,
            f"{prefix}speedup_high": high,
            f"{prefix}bound": bound,
        }
    return numbers


NAN = float("nan")
TOLD = [(2.0, 1.5, 2.5, ""), (1.1, 0.9, 1.3, ""), (0.5, 0.4, 0.6, "")]


def test_the_fastest_recipe_is_held_against_annealing_with_all_that_it_cost():
    table = pd.DataFrame(
        [
            row("slow", crossing=150.0, told=[(9.0, 8.0, 10.0, "")] * 3),
            row("quick", told=TOLD),
            row("quick", against="control", told=[(7.0, 6.0, 8.0, "")] * 3),
            row("other", role="density", crossing=1.0, told=TOLD),
        ]
    )
    assert recipe_sentence(table) == (
        "Against uniform, annealed, the fastest of 2 recipes (quick) reached the target sooner by a factor of 2 [1.5, 2.5] in steps "
        "(faster), 1.1 [0.9, 1.3] with the steps of its pilot (not told apart), 0.5 [0.4, 0.6] in time with pilot and probes (slower)."
    )


@pytest.mark.parametrize(
    ("speedup", "said"),
    [
        ((1.2, NAN, NAN, "at least"), "at least 1.2 in steps (faster)"),
        ((0.8, NAN, NAN, "at least"), "at least 0.8 in steps (not told apart)"),
        ((0.8, NAN, NAN, "at most"), "at most 0.8 in steps (slower)"),
        ((1.2, NAN, NAN, "at most"), "at most 1.2 in steps (not told apart)"),
        ((NAN, NAN, NAN, "unknown"), "unknown: neither always arrived in steps (not told apart)"),
        ((1.2, NAN, NAN, ""), "1.2 in steps (no interval)"),
    ],
)
def test_bounds_tell_only_in_their_own_direction(speedup, said):
    table = pd.DataFrame([row("r", against="control", told=[speedup] * 3)])
    assert f"the recipe (r) reached the target sooner by a factor of {said}," in recipe_sentence(table)


def test_a_race_without_recipes_says_nothing():
    assert recipe_sentence(pd.DataFrame([row("other", role="density", told=TOLD)])) == ""
