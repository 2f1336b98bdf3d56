"""Every file of numbers in a store, or wherever results lie, looked at: what is wrong, and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from consistency_lab.errors import DamagedError, StoreError, UserError
from consistency_lab.json_text import parsed
from consistency_lab.store.atomic import as_path, is_temporary, unreadable
from consistency_lab.store.checkpoint import STATE, check_run_tensors, check_state, check_tensors, load_state
from consistency_lab.store.checksums import KEY, checked
from consistency_lab.store.mirror import url_of
from consistency_lab.store.results import has_sum, load_result
from consistency_lab.store.rows import RowFile
from consistency_lab.store.run import ASIDE, DONE, LOG, NO_SPEC, SPEC, Run
from consistency_lab.store.runs import RESULT, Store, check_result, is_run_folder

_OURS = ("spec", "values", "density", "scores")  # a JSON object with one of these is ours, with a checksum or without


class Finding(NamedTuple):
    """Something to know of a file or folder: ``wrong`` if its numbers are not to be trusted, else worth a line."""

    path: Path | str  # text where it is a URL
    what: str
    remedy: str
    wrong: bool = True


def verify(paths: Sequence[str | os.PathLike[str]]) -> tuple[int, list[Finding]]:
    """Read everything that lies in stores, folders of results and single files.

    Weights, snapshots, checkpoints, results, rows, recipes, baselines, logs and what describes a run are read through and their checksums
    looked at; nothing is changed. Files of an earlier version have no checksum: they are opened all the same, and named. Of a store behind
    a URL it is what lies there that is read, run by run, and not what this machine has of it.

    Returns:
        the number of files that were looked at, and what was found.

    Raises:
        UserError: there is no such file, folder or store. StoreError: a URL cannot be reached.
    """
    files, found, unsummed = 0, list[Finding](), list[str]()
    for path in map(as_path, paths):
        if url_of(path) is not None:
            files += _verify_shared(Store(path), found, unsummed)
        elif not path.exists():
            raise UserError(f"there is no {path}; name a store, a folder of results, or a file.")
        else:
            files += _verify_here(path, found, unsummed)
    if unsummed:
        names = ", ".join(unsummed[:3]) + (", ..." if len(unsummed) > 3 else "")
        what = f"no checksum in {len(unsummed)} of {files} files: {names}"
        found.append(
            Finding(
                url_of(paths[0]) or Path(paths[0]),
                what,
                "nothing: they are of an earlier version, and can be read",
                wrong=False,
            )
        )
    return files, found


def _verify_here(path: Path, found: list[Finding], unsummed: list[str]) -> int:
    """The number of files that were looked at in a folder, or 1 for a file."""
    files, said = 0, set[str]()
    for file in _files(path, found):
        if is_temporary(file):
            remedy = "remove it when no program writes there"
            found.append(Finding(file, "was left by a writer that was killed", remedy, wrong=False))
            continue
        try:
            summed = _look(file)
        except StoreError as error:
            if str(error) not in said:  # a log is damaged if the end of its run is, which has been said
                found.append(_finding(file, error))
            said.add(str(error))
            summed = True
        files += summed is not None
        unsummed += [str(file)] if summed is False else []
    return files


def _verify_shared(store: Store, found: list[Finding], unsummed: list[str]) -> int:
    """As `_verify_here`, of copies of what lies behind a URL, which is named in their place."""
    from consistency_lab.store.shared import SharedStore

    assert isinstance(store, SharedStore)
    files, here, without = 0, list[Finding](), list[str]()
    for name, copy in store.copies():
        here.clear()
        without.clear()
        files += _verify_here(copy, here, without)

        def there(text: object, copy: Path = copy, name: str = name) -> str:
            return str(text).replace(str(copy), f"{store.url}/{name}")

        found += [
            each._replace(path=there(each.path), what=there(each.what), remedy=there(each.remedy)) for each in here
        ]
        unsummed += map(there, without)
    for name in store.names_aside():
        found.append(_aside(f"{store.url}/{ASIDE}/{name}"))
    return files


def _files(path: Path, found: list[Finding]) -> Iterator[Path]:
    """The files of a folder and below, in order; what was set aside is named and passed over."""
    if not path.is_dir():
        yield path
        return

    def refused(error: OSError) -> None:
        found.append(_finding(Path(error.filename), unreadable(Path(error.filename), error)))

    for folder, below, names in os.walk(path, onerror=refused):
        here = Path(folder)
        below[:] = sorted(name for name in below if not name.startswith("."))
        if ASIDE in below:
            below.remove(ASIDE)
            for aside in sorted((here / ASIDE).iterdir()):
                found.append(_aside(aside))
        found.extend(_gone(here, names))
        yield from (here / name for name in sorted(names))


def _aside(path: Path | str) -> Finding:
    return Finding(path, "was set aside and is read by nothing", "remove it when nothing in it is needed", wrong=False)


def _gone(folder: Path, names: Sequence[str]) -> list[Finding]:
    """What a run had and has no longer, by the files of its folder; nothing where that cannot be told, which is said of the file that
    would tell."""
    if SPEC not in names:
        lost = is_run_folder(folder.name) and DONE in names
        what = f"is gone from a run, without which nothing of it can be read; {NO_SPEC}"
        return [_finding(folder / SPEC, StoreError(what))] if lost else []
    try:
        run = Run.open(folder)
        lacking = run.missing()
    except StoreError:
        return []
    remedy = "put it back, or make the run again with --force, which sets its folder aside"
    found = [Finding(folder / name, "is gone from a finished run", remedy) for name in lacking]
    weights = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
    if weights and DONE not in names and STATE not in names and not run.done:  # by another process, by now
        found.append(Finding(folder / DONE, f"is gone, and so is {STATE}, of a run that holds {weights[0]}", remedy))
    if not folder.name.endswith(f"-{run.hash[:12]}") and RESULT not in names:
        remedy = f"give the folder a name that ends with -{run.hash[:12]}"
        what = "has another name than its run's, so the same work would be done again"
        found.append(Finding(folder, what, remedy, wrong=False))
    return found


def _look(path: Path) -> bool | None:
    """Whether a file has a checksum, after it was looked at; None for a file that is none of ours. Raises `StoreError`."""
    if path.name.startswith("."):
        return None
    home = next((folder for folder in list(path.parents)[:2] if (folder / SPEC).is_file()), None)
    run = None if home is None else _run_of(home)
    if run is None and path.name in (DONE, LOG) and (home or (path.parent / DONE).is_file()):
        return None  # their sums are of the run's hash too, which is not known
    if path.suffix == ".safetensors":
        return check_tensors(path) if run is None else check_run_tensors(run, path.relative_to(run.folder).as_posix())
    if path.suffix == ".nc":
        load_result(path)
        if run is not None and path.name == RESULT:
            check_result(run)
        return has_sum(path)
    if path.name == STATE and run is not None:
        load_state(path, of=run)
        return check_state(path)
    if path.name == LOG and run is not None:
        run.records()
        return _lines_summed(path)
    if path.suffix == ".jsonl":
        rows = RowFile(path)
        if rows.repeated or rows.torn:
            what = "ends within a line" if rows.torn else f"has {rows.repeated} rows twice"
            raise DamagedError(f"{path} {what}; {'the next row that is written mends it' if rows.torn else _TWICE}.")
        return not rows.unsummed
    return _json(path, run) if path.suffix == ".json" else None


_TWICE = "keep the first line of each key, which is the one that counts"


def _json(path: Path, run: Run | None) -> bool | None:
    if path.name == SPEC and path.parent.parent.name != "pipelines":
        Run.open(path.parent)
    try:
        content = parsed(path.read_text("utf-8"))
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        raise DamagedError(f"{path} is truncated or damaged; restore it from a copy.") from None
    if not isinstance(content, dict):
        return None
    if path.name == DONE and run is not None:
        assert run.summary is not None
    elif KEY in content:
        checked(content, path, "restore it from a copy, or make it again")
    return KEY in content if KEY in content or path.name == DONE or set(_OURS) & set(content) else None


def _run_of(folder: Path) -> Run | None:
    """The run of a folder; None where its spec is damaged, which is said of the spec itself, or is that of a pipeline."""
    try:
        return Run.open(folder)
    except StoreError:
        return None


def _lines_summed(path: Path) -> bool:
    return all(f'"{KEY}"' in line for line in path.read_text("ascii", errors="replace").splitlines())


def _finding(path: Path, error: StoreError) -> Finding:
    """The sentence of an error in two halves."""
    what, _, remedy = str(error).removeprefix(f"{path} ").rstrip(".").partition("; ")
    return Finding(path, what, remedy or "look at it")
