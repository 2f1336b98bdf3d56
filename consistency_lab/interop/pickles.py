"""Files that run code when they are opened, and what to do instead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from consistency_lab.errors import UserError

PICKLES = (".pkl", ".pickle")

# EDM's networks cannot be exported as TorchScript (their attention is a Python autograd function): the weights travel
# alone and the network is built again from EDM's source, which is code that one can read.
_RECIPE = """
    # once, in a clone of github.com/NVlabs/edm, on a machine that you trust:
    import json, pickle; from safetensors.torch import save_file
    net = pickle.load(open("{file}", "rb"))["ema"]
    save_file({{key: value.contiguous() for key, value in net.state_dict().items()}}, "{stem}.safetensors")
    json.dump(dict(net.init_kwargs), open("{stem}.json", "w"))
    # then, with that clone on the path and the two files, wherever you like:
    import json; from consistency_lab.interop.module import wrap_module
    from safetensors.torch import load_file; from training.networks import EDMPrecond
    net = EDMPrecond(**json.load(open("{stem}.json"))); net.load_state_dict(load_file("{stem}.safetensors"))
    shape = (net.img_channels, net.img_resolution, net.img_resolution)
    model = wrap_module(net, schedule="edm", predicts="x0", time="sigma", shape=shape, name="{stem}")"""


def is_pickle(path: str | os.PathLike[str]) -> bool:
    """Whether the name says that this is a pickle; the file is not looked at."""
    return Path(path).suffix.lower() in PICKLES


def refuse_pickle(path: str | os.PathLike[str]) -> NoReturn:
    """Explain why a pickle (EDM's ``network-snapshot-*.pkl``) is not opened, and how its weights get here.

    Raises:
        UserError: always. The file is not opened, not even to look.
    """
    file = Path(path)
    recipe = _RECIPE.format(file=file.name, stem=file.stem)
    raise UserError(
        f"{file} is a pickle, and opening one runs whatever code its writer put there, so it is never opened here; "
        f"take its weights out once on a machine that you trust, and wrap the network:{recipe}"
    )
