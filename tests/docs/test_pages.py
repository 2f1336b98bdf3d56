"""The README and docs/ are the manual: their code runs, here with less training; their commands parse; their links lead somewhere.

The blocks of one page share a namespace and run in order, as a reader would type them.
"""

import dataclasses
import functools
import inspect
import re
import shlex
import sys
import types
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from registered import asked_of, module_of

import consistency_lab as cl
from consistency_lab.cli.commands import COMMANDS
from consistency_lab.cli.parsing import parse
from consistency_lab.diffusion.references import ConstantDenoiser, GaussianDenoiser

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "reference.md"]  # that one is made
PAGES = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *WRITTEN]}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)

TRAINING = {"steps": 2, "batch": 16, "device": "cpu", "progress": False}
SAMPLING = cl.Sampler(steps=3)
LIMITS = {
    "train": TRAINING,
    "compare": {"count": 8, "levels": 4, "sampler": SAMPLING},
    "compare_frozen": {"count": 8},
    "compare_representations": {"count": 8},
    "compare_snapshots": {"count": 4, "sampler": SAMPLING},
    "gate": {"count": 32, "sampler": SAMPLING},
    "measure_quality": {"count": 20, "sampler": SAMPLING},
    "measure_reproducibility": {"count": 8, "sampler": SAMPLING},
    "set_classifier": {"steps": 5},
    "probe_difficulty": {"count": 4, "bins": 4, "detail": 2},
    "probe_landscape": {"count": 4, "bins": 3, "points": 5},
    "probe_curvature": {"count": 4, "bins": 2, "eigenvalues": 1, "probes": 2, "steps": 4, "products": 6, "by_t": False},
}
REGISTRIES = (cl.KINDS, cl.NETWORKS, cl.TIMESTEPS, cl.METRICS, cl.SCHEDULES, cl.SAMPLERS)


def blocks(text, *languages):
    return [
        (text[: found.start()].count("\n") + 1, found[2]) for found in BLOCK.finditer(text) if found[1] in languages
    ]


def limited(function, limits, **defaults):
    """The function with sizes that take no time, whatever it is asked for; a sampler keeps its method, a comparison its metrics."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        given = kwargs.get("sampler")
        forced = {**limits, "sampler": dataclasses.replace(cl.Sampler.of(given), steps=3)} if given else limits
        return function(*args, **{**defaults, **kwargs, **forced})

    return call


class Writer:
    """Stands in for TensorBoard's, which is no dependency."""

    written: ClassVar[dict[str, list[float]]] = {}

    def __init__(self, folder):
        self.written.clear()

    def add_scalar(self, tag, value, step):
        self.written.setdefault(tag, []).append(float(value))


@pytest.fixture
def small(request, monkeypatch, tmp_path):
    """A folder of its own, tiny sizes, and registries that forget what a page registers.

    Figures cost most: where a page asks for no metric, one is compared, or two where it shows the second.
    """
    page = PAGES[request.node.callspec.params["page"]] if hasattr(request.node, "callspec") else ""
    metrics = ("mse", "cosine") if 'metric="cosine"' in page else ("mse",)
    defaults = {name: {"metrics": metrics} for name in ("compare", "compare_frozen", "compare_snapshots")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    for name, limits in LIMITS.items():
        monkeypatch.setattr(cl, name, limited(getattr(cl, name), limits, **defaults.get(name, {})))
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_builders", dict(registry._builders))
    return tmp_path


def run(page):
    """What the code of a page leaves behind, by name."""
    namespace = {}
    for line, source in blocks(PAGES[page], "python"):
        # So many empty lines that a failure names the line of the page.
        exec(compile("\n" * line + source, page, "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if blocks(text, "python")])
def test_the_code_of_a_page_runs(page, small):
    run(page)
    for name in re.findall(r'cl\.report\(.*"(\w+\.html)"', PAGES[page]):
        assert (small / name).stat().st_size > 10_000


@pytest.fixture
def unreported(monkeypatch):
    """For what is not about reports: the page's own test makes them."""
    monkeypatch.setattr(cl, "report", lambda *args, **options: None)


def test_what_the_page_adds_passes_the_tests_of_its_registry(small, unreported):
    run("docs/adding.md")
    suites = {
        "linear": "networks/test_registry.py",
        "late": "training/test_timesteps.py",
        "edges": "metrics/test_distances.py",
    }
    for name, suite in suites.items():
        module = module_of(suite)
        asked = list(asked_of(module, name))
        assert len(asked) > 8, suite
        for test, arguments in asked:
            if "distance" in arguments:
                arguments["distance"] = module.build(name)
            if "tmp_path" in inspect.signature(test).parameters:
                arguments["tmp_path"] = small
            test(**arguments)


def test_the_probe_of_the_page_measures_what_it_says(small, unreported):
    page = run("docs/adding.md")
    probe, images = page["probe_brightness"], page["images"]
    schedule = cl.SCHEDULES.build("linear")
    mean = cl.DiffusionModel("mean", ConstantDenoiser(images.all().mean(0), schedule).train())
    found = probe(mean, images, count=20, bins=3)
    assert found.attrs["kind"] == "brightness"
    assert mean.denoiser.training  # left as it was
    expected = float(images.all().mean() - images.all()[:20].mean())  # its estimate is the mean at every level
    assert found["brightness"].values == pytest.approx(expected, abs=1e-6)
    assert (found["brightness_low"] < found["brightness"]).all()
    with pytest.raises(cl.UserError, match="different values for the same model"):
        probe(cl.DiffusionModel("noisy", Noisy.fit(images.all(), schedule)), images, count=4, bins=2)


class Noisy(GaussianDenoiser):
    """A denoiser that gives two answers to one question."""

    def predict(self, x_t, *args):
        return super().predict(x_t + torch.randn_like(x_t), *args)


def test_the_logging_of_the_training_page_writes_losses_over_t(small):
    (block,) = [source for _, source in blocks(PAGES["docs/training.md"], "python") if "SummaryWriter" in source]
    images, held_out = cl.load_images("digits").split(100, 20)
    exec(block, {"cl": cl, "images": images, "held_out": held_out})
    assert {"loss", "lr", "beta1", "validation/t=0.05", "validation/t=0.95"} < set(Writer.written)
    assert len(Writer.written) == 13


def commands(text):
    for line, source in blocks(text, "", "sh"):
        for number, typed in enumerate(source.splitlines(), start=line + 1):
            words = shlex.split(typed, comments=True)
            if words:
                yield number, words


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if list(commands(text))])
def test_the_commands_of_a_page_parse(page):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), flags=re.MULTILINE)
    for number, words in commands(PAGES[page]):
        where, program = f"{page}:{number}: {words}", Path(words[0]).name
        if words[1] == "--tyro-write-completion":  # which tests/cli/test_completion.py runs
            assert len(words) == 4, where
        elif program == "consistency-lab":
            assert isinstance(parse(words[1:]), COMMANDS[words[1]]), where
        elif program in ("accelerate", "torchrun"):
            inner = words[words.index("consistency_lab.cli") + 1 :]
            assert isinstance(parse(inner), COMMANDS[inner[0]]), where
        elif program == "make":
            assert words[1] in targets, where
        elif program == "python":
            assert words[1] == "-m" or (ROOT / words[1]).is_file(), where
        else:
            assert words[:2] == [words[0], "install"] and program == "pip", where  # noqa: PT018
            assert all(extra in extras for extra in re.findall(r"\[(\w+)\]", " ".join(words))), where


def test_a_command_that_does_not_exist_would_be_found():
    with pytest.raises(SystemExit):
        parse(["train", "--stepz", "3"])


def test_the_readme_shows_the_two_ways_in():
    assert len(blocks(PAGES["README.md"], "python")) == 1
    assert len(re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", BLOCK.sub("", PAGES["README.md"])).split()) < 700
    named = {words[1] for _, words in commands(PAGES["README.md"]) if words[0] == "consistency-lab"}
    assert {"train", "compare", "probe", "study", "report", "status", "export", "gate"} <= named


def test_the_two_demos_write_to_two_folders():
    """The full one does not write over results of others, and README tells of the quick one first."""
    places = re.findall(r"consistency-lab demo .*--out (\S+)", (ROOT / "Makefile").read_text("utf-8"))
    assert len(places) == len(set(places)) == 2


def anchors(text):
    """GitHub's names of headings."""
    titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), flags=re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


LINKED = {
    **PAGES,
    **{
        f"{folder}/{name}": (ROOT / folder / name).read_text("utf-8")
        for folder, name in [("docs", "reference.md"), ("notebooks", "README.md")]
    },
}


@pytest.mark.parametrize("page", LINKED)
def test_the_links_of_a_page_lead_somewhere(page):
    text = BLOCK.sub("", LINKED[page])
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page} -> {target}"
        if anchor:
            assert anchors(file.read_text("utf-8")).count(anchor) == 1, f"{page} -> {target}"


def test_the_index_names_every_page():
    for page in WRITTEN:
        assert page.name == "README.md" or f"]({page.name}" in PAGES["docs/README.md"], page.name
