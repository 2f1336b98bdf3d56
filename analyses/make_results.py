"""Every row of a preset: says beforehand what training and evaluation would take here, then runs the studies and races one after another.

Finished rows are stored, so that a stopped run resumes; what is finished is counted as nothing.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

from _common import PLANS, PRESETS

from consistency_lab.errors import UserError
from consistency_lab.presets import LikenessPlan

STUDIES = tuple(name for name in PLANS if name != "race")
# By the name that its files have, race-NAME.nc.
RACES = {
    "standard": (),
    "pilot-free": ("--contestants", "pilot-free"),
    "fresh-seeds": ("--contestants", "fresh-seeds"),
    "centers": ("--contestants", "centers"),
    "consistency": ("--consistency",),
}
# Options that the commands share; those of data are the studies' own.
SHARED = ("store", "workers", "executor", "address", "gpus_per_worker", "out", "device")
STUDY_OWN = ("data_dir", "lpips_weights")

Run = Callable[[Sequence[str], bool], str]


def commands(preset: str, options: dict[str, str | None]) -> list[list[str]]:
    """The commands that make the rows of a preset: the studies and races that have a plan for it."""

    def given(names: Sequence[str]) -> list[str]:
        return [
            part for name in names if (value := options.get(name)) for part in (f"--{name.replace('_', '-')}", value)
        ]

    every = []
    for study in STUDIES:
        if planned(study, preset):
            every.append(["study", study, "--preset", preset, *given((*SHARED, *STUDY_OWN))])
    if planned("race", preset):
        every += [["race", "--preset", preset, *own, *given(SHARED)] for own in RACES.values()]
    return every


def planned(study: str, preset: str) -> bool:
    try:
        PLANS[study](preset)
    except UserError:
        return False
    return True


def minutes(command: Sequence[str], preset: str, run: Run, counted: set[object]) -> float | None:
    """Of training and evaluation, as the command's own dry run says; None for one that has none.

    Studies share models: the training of one that is in ``counted`` is left out, and those of this command are added to it. A job that is
    no model of the plan (a probe of a family, a contestant) is this command's own.

    Raises:
        UserError: the command lacks something, such as a file of weights.
    """
    if "--consistency" in command:
        return None
    total, plan = 0.0, PLANS[command[1]](preset) if command[0] == "study" else None
    for name, cost in json.loads(run([*command, "--dry-run", "--json"], True))["jobs"].items():
        settings = plan.jobs.get(name) if isinstance(plan, LikenessPlan) else None
        model = (command[1], name) if settings is None else (plan.data, settings)
        total += cost["evaluation"] + (0.0 if model in counted else cost["training"])
        counted.add(model)
    return total


def main(arguments: Sequence[str] | None = None, run: Run | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--preset", choices=PRESETS, default="digits", help="on which data")
    for name, text in {
        "store": "folder of models and results",
        "out": "folder for PRESET/STUDY.jsonl",
        "workers": "models trained at a time",
        "executor": "where: local, or ray",
        "address": "of the Ray cluster",
        "gpus_per_worker": "share of a GPU that a model trained on Ray asks for",
        "device": "cpu, cuda, ...",
        "data_dir": "folder with the files of published sets",
        "lpips_weights": "file with the trunk's weights, for LPIPS",
    }.items():
        parser.add_argument(f"--{name.replace('_', '-')}", help=text)
    parser.add_argument("--dry-run", action="store_true", help="say what it would take, and stop")
    given = vars(parser.parse_args(arguments))
    run, todo = run or _run, commands(given["preset"], given)
    if not todo:
        print(f"no study has a plan for the preset {given['preset']!r}.", file=sys.stderr)
        raise SystemExit(2)
    total, counted, lacking = 0.0, set[object](), 0
    for command in todo:
        try:
            found = minutes(command, given["preset"], run, counted)
        except UserError as error:
            said, lacking = str(error), lacking + 1
        else:
            said, total = "not foretold" if found is None else f"{found:.1f} min", total + (found or 0.0)
        print(f"{shlex.join(command)}: {said}", flush=True)
    print(
        f"in all {total:.0f} min of training and sampling on this machine, one job after another; probes come on top"
        f"{f', and what {lacking} of these commands would take, which lack something' if lacking else ''}.",
        flush=True,
    )
    if lacking and not given["dry_run"]:
        print("nothing was begun.", file=sys.stderr)
        raise SystemExit(2)
    for command in () if given["dry_run"] else todo:
        print(f"consistency-lab {shlex.join(command)}", flush=True)
        run(command, False)


def _run(command: Sequence[str], quiet: bool) -> str:
    """Run a command of the package; its output is returned if it is to be quiet.

    Raises:
        UserError: a quiet command could not do its work; its own sentence. Another ends this process with its exit status.
    """
    pipe = subprocess.PIPE if quiet else None
    done = subprocess.run(
        [sys.executable, "-m", "consistency_lab.cli", *command], stdout=pipe, stderr=pipe, text=True, check=False
    )
    if done.returncode and quiet and done.returncode != 130:
        raise UserError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout or ""


if __name__ == "__main__":
    main()
