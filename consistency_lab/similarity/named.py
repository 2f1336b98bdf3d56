"""What a sample is called: by the name of its file where it has one, else by its number."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr


def sample_numbers(result: xr.Dataset) -> tuple[int, ...]:
    """The numbers of the samples in the order of the result, from which some may have been left out."""
    return tuple(map(int, result["sample"].values if "sample" in result.coords else range(result.sizes["sample"])))


def sample_names(result: xr.Dataset) -> dict[int, str]:
    """What every sample is called, by its number; figures, tables and sentences all say this and nothing else."""
    numbers = sample_numbers(result)
    named = result["sample_name"].values if "sample_name" in result.coords else np.array(numbers)
    return dict(zip(numbers, map(str, np.atleast_1d(named)), strict=True))


def sample_name(result: xr.Dataset, sample: int) -> str:
    """What the sample of that number is called."""
    return sample_names(result).get(sample, str(sample))


def shared_word(result: xr.Dataset) -> str:
    """What the images of one sample share: "noise", or where all models are folders of images "place", for whether those were made from
    the same noise is not known.
    """
    try:
        models = json.loads(result.attrs["provenance"])["models"]
        folders = [model.get("kind") == "images" for model in models]
    except (KeyError, TypeError, ValueError, AttributeError):
        return "noise"  # nothing is recorded of how it was made
    return "place" if folders and all(folders) else "noise"


def column_word(result: xr.Dataset) -> str:
    """What a column of a gallery is: "noise", or "image" of folders."""
    return "image" if shared_word(result) == "place" else "noise"
