"""The table of code bases whose checkpoints are recognised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.interop.families.ddpm_pytorch import DDPM_PYTORCH, load_ddpm_pytorch
from consistency_lab.interop.families.family import Family, State
from consistency_lab.interop.families.k_diffusion import K_IMAGE, K_TRANSFORMER, load_k_diffusion
from consistency_lab.interop.families.others import AZULA, DIT, EDM, SCORE_SDE, SIT, UVIT
from consistency_lab.interop.families.smalldiffusion import SMALL_DIT, SMALL_UNET, load_smalldiffusion
from consistency_lab.interop.families.unets import FLOW_MATCHING, GUIDED, IMPROVED, TORCHCFM, load_guided, load_torchcfm

FAMILIES: tuple[Family, ...] = (
    DDPM_PYTORCH,
    SMALL_UNET,
    SMALL_DIT,
    K_IMAGE,
    K_TRANSFORMER,
    TORCHCFM,
    FLOW_MATCHING,
    GUIDED,
    IMPROVED,
    DIT,
    SIT,
    UVIT,
    SCORE_SDE,
    EDM,
    AZULA,
)
FAMILY_OPENERS: dict[str, Callable[..., DiffusionModel]] = {
    "ddpm-pytorch": load_ddpm_pytorch,
    "guided-diffusion": load_guided,
    "k-diffusion": load_k_diffusion,
    "smalldiffusion": load_smalldiffusion,
    "torchcfm": load_torchcfm,
}


def families_of(state: State) -> list[Family]:
    """Those whose networks have such tensors; several where code bases share a network."""
    return [family for family in FAMILIES if family.knows(state)]


def said_of(family: Family, state: State, file: Path) -> str:
    """How a checkpoint of that family becomes a model: its address, or lines of Python."""
    remark = f" {family.remark}" if family.remark else ""
    if family.prefix:
        address = f"{family.prefix}:{file}" + (f"?{family.options}" if family.options else "")
        return f"as a checkpoint of {family.name} it is opened by\n    {address}\n{remark.strip()}".rstrip()
    lines = "\n".join(f"    {line}" for line in family.recipe(state, file.stem))
    return f"as a checkpoint of {family.name} it is\n{lines}\n{remark.strip()}".rstrip()
