"""Every reader with damaged, odd and arbitrary bytes: a sentence that names the file, or the numbers that a checksum vouches for.

``make fuzz`` runs it for `SECONDS`, or for so many `ROUNDS`; ``python tests/helpers/fuzz.py --count 2000`` is the same. Each round is
a function of (seed, number): ``--only NUMBER`` repeats one. The rounds run in a process of their own, with a limit to its memory, which is
started again where a round kills it. Exit status 1 if a round ended in an exception of another kind, in a crash, beyond the limits
of time or memory, in a message that names no file, or in wrong numbers.
"""

from __future__ import annotations

import argparse
import faulthandler
import gzip
import io
import json
import logging
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from faults import changed, same, table

OUTCOMES = ("named", "as written", "made again", "no checksum", "unnamed", "WRONG", "TRACEBACK", "MEMORY", "KILLED")
WORST = OUTCOMES[4:]
DAMAGE = ("bit flip", "truncation", "zeroed block", "arbitrary bytes", "odd numbers", "odd values", "within")
SECONDS, MEMORY = (
    20,
    2 << 30,
)  # that one round may take, and that it may take beyond what the process holds before the first
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 2**63, -(2**70), 0.5, 1e308, float("nan"), float("inf")),
    *(
        "",
        "a" * 5000,
        "\ud800",
        "../../escape",
        "\x1b[2J",
        "$x_",
        "[[[",
        "name(a=1)",
        "(" * 400,
        "x(a=" + "[" * 400 + ")",
    ),
    *([], {}, [[]], [None], {"": {}}, {"name": []}, {"name": "unet", "width": "a"}),
)


def damaged(whole: bytes, damage: str, rng: random.Random) -> bytes:
    """Those bytes with a damage."""
    if damage in ("bit flip", "truncation", "zeroed block"):
        for _ in range(rng.choice([1, 1, 2, 8]) if damage == "bit flip" else 1):
            whole = changed(whole, damage, rng)
        return whole
    if damage == "odd values":
        return _odd_values(whole, rng)
    if damage == "within":
        return _within(whole, rng)
    place = rng.randrange(min(len(whole), rng.choice([64, 1024, 1 << 30])) + 1)
    if damage == "odd numbers":
        kind = rng.choice(["<i", ">i", "<q", ">q"])
        number = rng.choice([-1, 0, 1, 255, 2**31 - 1, -(2**31), rng.randrange(2**31)])
        put = struct.pack(kind, number)
        return whole[:place] + put + whole[place + len(put) :]
    put = rng.randbytes(rng.choice([1, 4, 64, 1000]))
    how = rng.choice(["over", "between", "behind", "instead", "after the first"])
    if how in ("over", "between"):
        return whole[:place] + put + whole[place + (len(put) if how == "over" else 0) :]
    return {"behind": whole, "instead": b"", "after the first": whole[: rng.choice([2, 8, 16, 128])]}[how] + put


def _odd_values(whole: bytes, rng: random.Random) -> bytes:
    """A JSON text, JSON lines or a safetensors header with an odd value, and without checksums; other files: odd numbers."""
    try:
        if len(whole) > 8 and (length := int.from_bytes(whole[:8], "little")) < len(whole) and whole[8:9] == b"{":
            header = _odd(whole[8 : 8 + length], rng)
            return len(header).to_bytes(8, "little") + header + whole[8 + length :]
        if whole.startswith((b"{", b"[")):
            lines = whole.splitlines(keepends=True)
            if len(lines) == 1 or not lines[0].endswith(b"}\n"):
                return _odd(whole, rng)
            at = rng.randrange(len(lines))
            lines[at] = _odd(lines[at].rstrip(b"\n"), rng) + b"\n"
            return b"".join(lines)
    except ValueError:  # damaged already, or never one of these
        pass
    return damaged(whole, "odd numbers", rng)


def _odd(text: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        return rng.choice([b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"null", b"[]", b"{}", b"\xff\xfe{}"])
    content = json.loads(text)
    if isinstance(content, dict):
        content.pop("checksum", None)
    places = list(_places(content))
    if not places:
        return text
    holder, key = rng.choice(places)
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[key]
    elif isinstance(holder, dict) and rng.random() < 0.1:
        holder[rng.choice(["", "name", "kind", "\ud800", "a" * 300])] = holder.pop(key)
    elif isinstance(holder[key], str) and holder[key][:1] in ("{", "[") and rng.random() < 0.7:
        holder[key] = _odd(holder[key].encode(), rng).decode(
            errors="replace"
        )  # JSON in JSON: the metadata of safetensors
    else:
        holder[key] = rng.choice(ODD)
    return json.dumps(content).encode()


def _places(content: Any) -> Any:
    """Every (holder, key) in nested JSON."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(inside):
        yield content, key
        yield from _places(value)


def _within(whole: bytes, rng: random.Random) -> bytes:
    """Damage that the packing vouches for: of a member of a zip archive, or of what was gzipped; other files: odd values."""
    other = rng.choice([each for each in DAMAGE if each != "within"])
    if whole[:2] == b"\x1f\x8b":
        return gzip.compress(damaged(gzip.decompress(whole), other, rng), mtime=0)
    if not zipfile.is_zipfile(io.BytesIO(whole)):
        return _odd_values(whole, rng)
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(target, "w") as archive:
        chosen = rng.choice(source.namelist())
        for name in source.namelist():
            content = source.read(name)
            archive.writestr(name, damaged(content, other, rng) if name == chosen else content)
    return target.getvalue()


def outcome(reader: Any, before: bytes, content: bytes, whole: Any) -> tuple[str, str]:
    """What becomes of a file with that content in the place of what it had before, and the words of it."""
    from consistency_lab.errors import UserError

    reader.path.unlink(missing_ok=True)  # what was read of it is mapped
    reader.path.write_bytes(content)
    try:
        found = reader.read()
    except UserError as error:
        if _starved(error) and reader.path.suffix != ".tif":  # PIL itself bounds the pixels that a picture may declare
            return "MEMORY", traceback.format_exc()
        names = (*reader.named, reader.path.name, str(reader.path.parent), repr(reader.path.stem))
        return ("named" if any(name in str(error) for name in names) else "unnamed"), str(error)
    except Exception:
        return "TRACEBACK", traceback.format_exc()
    if same(found, whole):
        return "as written", ""
    if reader.shortens and same(found, whole[: len(found)]):
        return "made again", ""
    vouched = reader.summed and all(content.count(mark) >= before.count(mark) for mark in _MARKS)
    return ("WRONG", repr(found)[:2000]) if vouched else ("no checksum", "")


def _starved(error: BaseException | None) -> bool:
    """Whether a refusal began with memory that the limit did not give: without it that would have been taken."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


_MARKS = (b"consistency-lab blake2b ", b'"checksum"')


def work(first: int, last: int, seed: int, until: float) -> None:
    """The rounds from ``first`` on, in this process; a line of JSON for each that was begun, and for each that ended."""
    from fuzz_readers import readers

    warnings.simplefilter("ignore")
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        made = readers(Path(folder))
        whole = {name: reader.read() for name, reader in made.items()}
        content = {name: reader.path.read_bytes() for name, reader in made.items()}
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
        names = list(made)
        for number in range(first, last):
            if time.time() > until:
                break
            rng = random.Random(f"{seed}:{number}")
            name, damage = names[number % len(names)], DAMAGE[number // len(names) % len(DAMAGE)]
            if made[name].program and damage == "within":
                damage = "bit flip"
            print(json.dumps([number, name, damage]), flush=True)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            said, words = outcome(made[name], content[name], damaged(content[name], damage, rng), whole[name])
            faulthandler.cancel_dump_traceback_later()
            made[name].path.unlink()
            made[name].path.write_bytes(content[name])
            print(json.dumps([number, name, damage, said, words]), flush=True)


def fuzz(
    count: int, seed: int = 0, seconds: float = 1e9, first: int = 0
) -> tuple[Counter[tuple[str, str, str]], list[str]]:
    """Rounds ``first`` to ``first + count``, or as many as the seconds allow: counts by file, damage and outcome, and what went wrong."""
    counts, wrong, until, last = Counter[tuple[str, str, str]](), list[str](), time.time() + seconds, first + count
    while first < last and time.time() < until:
        words = [sys.executable, __file__, "--work", str(first), str(last), str(seed), str(until)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            begun = None
            for line in process.stdout or ():
                number, name, damage, *ended = json.loads(line)
                begun = None if ended else (number, name, damage)
                first = number + 1
                if ended:
                    counts[name, damage, ended[0]] += 1
                    if ended[0] in WORST:
                        wrong.append(f"round {number}: {name}, {damage}: {ended[0]}\n{ended[1]}")
            errors = (process.stderr or io.StringIO()).read()
        if process.returncode == 0:
            break
        if begun is None or (process.returncode == 1 and "Timeout (" not in errors):
            raise RuntimeError(f"the rounds ended by themselves, the last being {begun}: {errors[-3000:]}")
        code = process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        counts[begun[1], begun[2], "KILLED"] += 1
        wrong.append(f"round {begun[0]}: {begun[1]}, {begun[2]}: KILLED by {how}\n{errors[-3000:]}")
    return counts, wrong


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, help="rounds; 3000 where no seconds are given")
    options.add_argument(
        "--seconds", type=float, default=600, help="for as long as that; the round that is running is ended"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", type=int, help="that round alone")
    options.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.work:
        first, last, seed, until = asked.work
        work(int(first), int(last), int(seed), float(until))
        return 0
    rounds = asked.count or (10**9 if asked.seconds else 3000)
    count, first = (rounds, 0) if asked.only is None else (1, asked.only)
    counts, wrong = fuzz(count, asked.seed, asked.seconds or 1e9, first)
    print(table(counts, OUTCOMES))
    print(*wrong, sep="\n\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
