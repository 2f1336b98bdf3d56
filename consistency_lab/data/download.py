"""Fetching published files with pooch: several mirrors, believed only by their checksum."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from consistency_lab.errors import UserError

_TIMEOUT = 30.0  # seconds without a byte


@dataclass(frozen=True)
class Remote:
    """A published file: its name, its checksum ("sha256:<hex>" or "md5:<hex>") and the addresses that offer it, best first."""

    name: str
    known: str
    mirrors: tuple[str, ...]


class WouldFetchError(UserError):
    """A file would be downloaded, and within `nothing_fetched` none is."""

    def __init__(self, remote: Remote, folder: Path):
        self.remote, self.folder = remote, folder
        super().__init__(
            f"{remote.name} is not in {folder}, and nothing is downloaded now; it is at {remote.mirrors[0]}."
        )


_FETCHING: ContextVar[bool] = ContextVar("fetching", default=True)


@contextlib.contextmanager
def nothing_fetched() -> Iterator[None]:
    """Within the block, what would be downloaded is told by a `WouldFetchError`, and no folder is made for it."""
    token = _FETCHING.set(False)
    try:
        yield
    finally:
        _FETCHING.reset(token)


def fetch(remote: Remote, folder: Path) -> Path:
    """The file in ``folder``, downloaded if it is not there; it gets its name only if it is complete and its checksum is right.

    Raises `UserError` if no mirror delivers it or the folder cannot be written.
    """
    if not _FETCHING.get():
        raise WouldFetchError(remote, folder)
    import pooch
    import requests

    # Without "identity" some servers unpack a .gz on the way, and its sum would not fit.
    headers = {"Accept-Encoding": "identity"}
    failures = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for url in remote.mirrors:
            downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=_TIMEOUT, headers=headers)
            try:
                return Path(pooch.retrieve(url, remote.known, remote.name, folder, downloader=downloader))
            except requests.HTTPError as error:
                failures.append(f"{url} (HTTP {getattr(error.response, 'status_code', 'error')})")
            except requests.RequestException as error:
                failures.append(f"{url} ({type(error).__name__})")
            except ValueError:
                failures.append(f"{url} (what it sent has another checksum)")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; give another data_dir.") from None
    raise UserError(
        f"cannot download {remote.name} from {', '.join(failures)}; fetch it by hand, put it into {folder}, "
        "or give the data_dir where it lies."
    )
