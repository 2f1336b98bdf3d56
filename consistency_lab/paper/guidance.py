"""Families of class-conditional models under classifier-free guidance: the same weights, another denoiser at every scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel
from consistency_lab.errors import UserError
from consistency_lab.studies.fleet import Family


def guided(family: Family, scale: float) -> Family:
    """The family at a scale of guidance (1: as trained), by the name ``FAMILY, scale SCALE``; trains nothing before it is asked.

    Raises:
        UserError: on asking for its models, where they are no class-conditional diffusion models.
    """

    def models() -> Sequence[GenerativeModel]:
        made = []
        for model in family.models():
            if not isinstance(model, DiffusionModel):
                raise UserError(f"{model.name!r} is no diffusion model; only those are guided.")
            made.append(model.guided(scale))
        return made

    identities = tuple(f"{identity}-cfg{scale:g}" for identity in family.identities)
    return replace(family, name=f"{family.name}, scale {scale:g}", identities=identities, models=models)
