"""``%load_ext consistency_lab``: results show themselves in this notebook.

A result is an `xarray.Dataset`, whose own HTML lists variables and says nothing of scores. The class belongs to xarray, so it is not
changed, nor is anything on import: a notebook asks for it, for itself, and other datasets are shown by xarray as before.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

from consistency_lab.jupyter.card import show
from consistency_lab.kinds.base import Kind
from consistency_lab.kinds.registry import kind_of


def load(ipython: Any) -> None:
    """Show results by their cards from now on."""
    _formatter(ipython).for_type(xr.Dataset, dataset_html)


def unload(ipython: Any) -> None:
    """Leave datasets to xarray again."""
    _formatter(ipython).pop(xr.Dataset, None)


def _formatter(ipython: Any) -> Any:
    return ipython.display_formatter.formatters["text/html"]


def dataset_html(ds: xr.Dataset) -> str:
    """The card of a result; xarray's own HTML for any other dataset, and for a part of a result that has no card of its own.

    A dataset of a kind that nobody registered is a result if it says what made it: other people's datasets may have a ``kind`` as well.
    """
    try:
        if "provenance" in ds.attrs or type(kind_of(ds)) is not Kind:
            return show(ds)._repr_html_()
    except Exception:  # a part of a result may lack whatever its figures ask for, and a display must not fail
        pass
    return str(ds._repr_html_())
