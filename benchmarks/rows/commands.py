import subprocess
import sys
from tempfile import gettempdir, mkdtemp

TITLE = "time to first result"
BEFORE = "eb307a4"
PEER = "this package at eb307a4"
CASES = ("import consistency_lab", "--help", "list networks", "status of 12 runs")
GOALS = {}
SECONDS_GOALS = {"--help": 0.5, "list networks": 0.6, "status of 12 runs": 0.6}
TOLERANCE = 0
NOTE = (
    "Processor time of a new process, interpreter and all. `list` and `status` read names and options from a file that is tested "
    "against the code that it names, and load neither torch nor numpy; what is left is tyro and the parsers of 18 commands. "
    "What is compared is how long the lines of the output are; of `--help`, which has grown since, that it names `status`."
)


def ours(case):
    command = ["-m", "consistency_lab.cli", *case.split()]
    if case.startswith("import"):
        command = ["-c", "import consistency_lab; print(consistency_lab.__version__)"]
    elif case.startswith("status"):
        command = ["-m", "consistency_lab.cli", "status", "--store", _store()]

    def work():
        # From a folder of its own: the path of packages begins with where a process is.
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, cwd=gettempdir())
        lines = ["status"] if case == "--help" and "status" in done.stdout else done.stdout.splitlines()
        return {"lines": [len(line) for line in lines]}

    return work


def _store():
    """A folder with finished runs of twelve settings."""
    from consistency_lab.store.runs import Store
    from consistency_lab.training.settings import TrainingSettings

    folder = mkdtemp()
    for k in range(12):
        chosen = TrainingSettings.of(network=f"mlp(width={64 + k})", timesteps="clts", steps=100 * k + 100, seed=k)
        run = Store(folder).run("model", f"mlp-s{k}", {"settings": chosen.spec(), "data": {"name": "digits"}})
        with run.begin():
            run.finish({})
    return folder
