"""Do the tests pass with the lowest and with the newest supported version of every dependency?

    python tests/compat.py                               both, in folders of their own; a table at the end
    python tests/compat.py --of lowest --hold torch==2.14.1 torchvision==0.29.1

Each environment is made by uv, which resolves the bounds of pyproject.toml to their lowest (``--resolution lowest-direct``) or to the
newest; uv itself is installed into a folder of its own. What is held (``--hold``) is the same in both. The tests that run are those
in which other packages are met: files and their formats, results, networks of others, figures, reports, commands. Exit status 1 if one
fails.

Not collected by pytest, and not part of `make test`: it downloads several GB.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
EXTRAS = ("interop", "pipelines", "jupyter")
TOOLS = ("pytest>=8.0", "hypothesis>=6.100", "scikit-image>=0.22", "torchmetrics==1.9.0")
SLICE = (
    "tests/data", "tests/store", "tests/metrics", "tests/interop", "tests/plots", "tests/reports", "tests/kinds", "tests/cli/test_help.py",
    "tests/cli/test_workflow.py", "tests/similarity/test_compare.py", "tests/probes/test_landscape.py", "tests/training/test_settings.py",
)  # fmt: skip


def dependencies() -> list[str]:
    """Names of what the package and the extras need directly."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"], *(text for extra in EXTRAS for text in project["optional-dependencies"][extra])]
    names = [re.match(r"[A-Za-z0-9_.-]+", text)[0] for text in asked]  # type: ignore[index]
    return sorted({name for name in names if name != "consistency-lab"})


def run(*words: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], cwd=REPOSITORY, text=True, **options)  # type: ignore[call-overload]


def with_uv(folder: Path) -> list[str]:
    """How uv is called; it is installed first where it is not."""
    home = folder / "uv"
    if not (home / "bin").exists():
        run(sys.executable, "-m", "venv", home, check=True)
        run(home / "bin" / "python", "-m", "pip", "install", "--quiet", "uv", check=True)
    return [str(home / "bin" / "python"), "-m", "uv"]


def environment(uv: list[str], folder: Path, resolution: str, hold: list[str], more: list[str]) -> Path:
    """Its Python. Raises `CalledProcessError` where nothing can be resolved or installed."""
    place = folder / resolution
    python = place / "bin" / "python"
    held = folder / "hold.txt"
    held.write_text("\n".join(hold) + "\n")
    run(*uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, place, check=True)
    wanted = [f".[{','.join(EXTRAS)}]", *TOOLS]
    flags = ["--resolution", RESOLUTIONS[resolution], "--override", held, *more]
    run(*uv, "pip", "install", "--quiet", "--python", python, *flags, *wanted, check=True)
    return python


def versions(python: Path, names: list[str]) -> dict[str, str]:
    code = "import sys, json; from importlib.metadata import version; print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
    done = run(python, "-c", code, *names, capture_output=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def tested(python: Path, slice_: list[str]) -> str:
    """The last line of pytest, and before it the names of what failed."""
    done = run(
        python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line", *slice_, capture_output=True
    )
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]]
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            print(f"  {line}", flush=True)
    return re.sub(r"=+", "", lines[-1]).strip() if done.returncode in (0, 1) else f"no result: {lines[-1]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", nargs="*", choices=tuple(RESOLUTIONS), default=list(RESOLUTIONS))
    parser.add_argument(
        "--folder", type=Path, help="where environments are made and kept; a temporary folder by default"
    )
    parser.add_argument("--hold", nargs="*", default=[], help="versions that are the same in both: torch==2.14.1")
    parser.add_argument("--tests", nargs="*", default=list(SLICE), help="instead of the usual ones")
    parser.add_argument("--uv", nargs=argparse.REMAINDER, default=[], help="further options of uv pip install, last")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        uv, names = with_uv(folder), dependencies()
        table: dict[str, dict[str, str]] = {}
        for resolution in asked.of:
            print(f"{resolution}: installing", flush=True)
            try:
                python = environment(uv, folder, resolution, asked.hold, asked.uv)
                table[resolution] = versions(python, names)
                print(f"{resolution}: testing", flush=True)
                table[resolution]["tests"] = tested(python, asked.tests)
            except subprocess.CalledProcessError as error:
                table[resolution] = {"tests": f"cannot be installed (exit status {error.returncode})"}
    print("\n| | " + " | ".join(table) + " |\n|---|" + "---|" * len(table))
    for name in (*names, "tests"):
        print(f"| {name} | " + " | ".join(column.get(name, "") for column in table.values()) + " |")
    passed = [
        bool(re.search(r"\d+ passed", x["tests"])) and not re.search("failed|error", x["tests"]) for x in table.values()
    ]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
