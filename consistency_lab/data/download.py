"""Fetching published files: several mirrors, resumed where a transfer broke off, trusted only if their SHA-256 matches."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm.auto import tqdm

from consistency_lab.errors import UserError

_TIMEOUT = 30.0  # seconds without a byte


@dataclass(frozen=True)
class Remote:
    """A published file: its name, its SHA-256 (hex) and the addresses that offer it, best first."""

    name: str
    sha256: str
    mirrors: tuple[str, ...]


def fetch(remote: Remote, folder: Path) -> Path:
    """The file in ``folder``, downloaded if it is not there.

    What arrives lies in ``<name>.part`` until it is complete, so that the next attempt or mirror continues where this one
    broke off; it gets its name only if its SHA-256 is right. Processes that want the same file wait for the first.

    Raises `UserError` if no mirror delivers it or the folder cannot be written.
    """
    import pooch

    target, part, failures = folder / remote.name, folder / f"{remote.name}.part", []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{remote.name}.lock"):
            if target.exists():
                return target
            for url in remote.mirrors:
                try:
                    downloader = partial(_download, part=part)
                    pooch.retrieve(url, f"sha256:{remote.sha256}", remote.name, folder, downloader=downloader)
                    return target
                except (OSError, ValueError) as error:
                    failures.append(f"{url} ({_reason(error)})")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; give another data_dir.") from None
    raise UserError(
        f"cannot download {remote.name} from {', '.join(failures)}; fetch it by hand, put it into {folder}, "
        "or give the data_dir where it lies."
    )


def _download(url: str, output_file: str, _pooch: Any, *, part: Path) -> None:
    """pooch's downloader protocol: put the content of ``url`` at ``output_file``."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    # Without "identity" some servers unpack a .gz on the way, and neither its sum nor the position would fit.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        complete = have > 0 and response.status_code == requests.codes.requested_range_not_satisfiable
        if not complete:
            response.raise_for_status()
            resumed = response.status_code == requests.codes.partial_content
            _save(response, part, have if resumed else 0)
    shutil.move(part, output_file)


def _save(response: Any, part: Path, start: int) -> None:
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    with (
        part.open("ab" if start else "wb") as file,
        tqdm(desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, disable=None, leave=False) as bar,
    ):
        for chunk in response.iter_content(2**18):
            file.write(chunk)
            bar.update(len(chunk))


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, ValueError) and not isinstance(error, requests.RequestException):
        return "what it sent has another SHA-256"
    return type(error).__name__
