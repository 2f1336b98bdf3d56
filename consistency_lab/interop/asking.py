"""What a module is asked once, when it is wrapped: two images at two times, together and alone, and pure noise.

No training images are known then. Still a module can be told from one that would make numbers that are no model's: it fails, its answer
for an image depends on the other images, or it calls noise the opposite of what it was said to call it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from consistency_lab.devices import measuring
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import start_state
from consistency_lab.errors import UserError
from consistency_lab.interop.times import other_forms
from consistency_lab.interop.units import half_and_centre

if TYPE_CHECKING:
    from consistency_lab.interop.module import WrappedDenoiser

_SAME = 1e-3  # of an answer's size: batched kernels round otherwise, and that is far below
_SURE = 0.7  # correlation of an answer with the noise; that of a flow on images of unit variance
_NOISES = 8
# What is in the answer to pure noise: the noise with this sign. v and x0 are the image alone there, and say nothing.
_SIGNS = {"eps": 1, "flow": 1, "score": -1}


def ask(denoiser: WrappedDenoiser, name: str) -> list[str]:
    """Sentences for the reader; none where nothing speaks against the wrapping.

    Args:
        denoiser: in eval mode.
        name: of the model.

    Raises:
        UserError: the module fails, gives another shape or values that are not finite, answers differently each time, or gives
            another answer for an image where another image is asked with it.
    """
    times = denoiser.schedule.grid(2)[:2]
    kind = f"the module {type(denoiser.network.module).__name__}"
    try:
        both = _answers(denoiser, [0, 1], times)
        alone = [_answers(denoiser, [i], times[i : i + 1]) for i in (0, 1)]
    except Exception as error:  # a stranger's code may raise anything
        raise _failed(denoiser, kind, times, error) from error
    if not all(x.isfinite().all() for x in [both, *alone]):
        raise UserError(
            f"{kind} gives values that are not finite for noise at t = {times[0]:.3g} or {times[1]:.3g}; check its weights, and "
            "what it is given as time."
        )
    size = float(both.abs().max())
    if _apart(both, _answers(denoiser, [0, 1], times)) > _SAME * size:
        raise UserError(
            f"{kind} answers differently each time that it is asked the same; switch off what is random in it, such as dropout."
        )
    if _apart(both, torch.cat(alone)) > _SAME * size:
        raise UserError(
            f"{kind} gives another answer for an image where another image at another time is asked with it; it must treat every "
            f"image of a batch by itself{_hint(denoiser, times)}."
        )
    said = []
    if size > 0 and _apart(alone[0], _answers(denoiser, [0], times[:1], times[1:])) <= 1e-6 * size:
        said.append(
            f"{name}: its answer does not depend on the time that it is given ({_words(denoiser)}); if it was trained to be told "
            "the time, it is given it in the wrong form."
        )
    return said + noise_sentences(denoiser, name)


@torch.no_grad()
def _answers(denoiser: WrappedDenoiser, images: Sequence[int], levels: Tensor, times: Tensor | None = None) -> Tensor:
    """The module's outputs ``(B, C, H, W)`` for noises of those numbers, as strong as at those levels; told other times where given."""
    network = denoiser.network
    noise = SharedNoise(0).draw(images, denoiser.shape, stream="probe", device=network.place)
    states = torch.cat([start_state(denoiser, x[None], float(t)) for x, t in zip(noise, levels, strict=True)])
    labels = torch.tensor([i % network.classes for i in images], device=network.place) if network.classes else None
    shown = denoiser.shown(states, levels.to(network.place)).to(network.precision or torch.float64)
    given = shown.clone()
    with measuring():
        answers = network(shown, (levels if times is None else times).to(shown), labels)
    if not torch.equal(shown, given):
        raise ValueError(
            "it writes into the images that it is given, which are needed as they are (x.mul_(0.5), inplace=True)"
        )
    return answers


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _words(denoiser: WrappedDenoiser) -> str:
    time = denoiser.told.time
    return "a function of t" if callable(time) else f"time={str(time)!r}"


def _failed(denoiser: WrappedDenoiser, kind: str, times: Tensor, error: Exception) -> UserError:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    # TorchScript tells the stack first, and what went wrong at last.
    reason = next((line for line in reversed(lines) if line.startswith("RuntimeError:")), lines[0]).rstrip(".;")
    shape = tuple(denoiser.shape)
    return UserError(
        f"{kind} cannot be asked for two images {shape} at two times ({_words(denoiser)}): {reason}"
        f"{_hint(denoiser, times) or '; check shape and time, and say how it is called with call= where that is not module(x, time)'}."
    )


def _hint(denoiser: WrappedDenoiser, times: Tensor) -> str:
    """The form of the time in which the module treats two images as it treats each alone, if there is one."""
    for form in other_forms(denoiser.told.time):
        other = denoiser.retold(replace(denoiser.told, time=form))
        try:
            both = _answers(other, [0, 1], times)
            alone = torch.cat([_answers(other, [i], times[i : i + 1]) for i in (0, 1)])
        except Exception:  # then this form is not what it wants either
            continue
        if _apart(both, alone) <= _SAME * float(both.abs().max()):
            return f"; it does so with time={form!r}"
    return ""


def noise_sentences(denoiser: WrappedDenoiser, name: str) -> list[str]:
    """At t_max the state is noise, and an answer in eps, flow or score is that noise, with a known sign: is it?"""
    text = str(denoiser.told.predicts)
    plain = text.removeprefix("-")
    half, _ = half_and_centre(denoiser.told.value_range)
    if plain not in _SIGNS or (plain == "flow" and half > 1):  # an image in [0, 255] is larger than the noise
        return []
    told = _agreement(denoiser) * _SIGNS[plain] * (-1 if text.startswith("-") else 1)
    negative = plain if text.startswith("-") else f"-{text}"
    if told < -_SURE:
        return [_turned(name, f"predicts={negative!r}")]
    if told > _SURE / 2 or callable(denoiser.told.time):
        return []
    name_of_time = str(denoiser.told.time).partition("(")[0]
    if name_of_time not in ("unit", "reversed"):
        return []
    other = "reversed" if name_of_time == "unit" else "unit"
    turned = _agreement(denoiser.retold(replace(denoiser.told, time=other))) * _SIGNS[plain]
    turned *= -1 if text.startswith("-") else 1
    if turned > _SURE:
        return [_turned(name, f"time={other!r}")]
    return [_turned(name, f"time={other!r} and predicts={negative!r}")] if turned < -_SURE else []


def _agreement(denoiser: WrappedDenoiser) -> float:
    """Correlation, over noises, of the module's answers to pure noise with it, from -1 to 1; 0 where it fails or answers nothing."""
    numbers = range(_NOISES)
    times = denoiser.schedule.grid(1)[:1].repeat(_NOISES)
    noise = SharedNoise(0).draw(numbers, denoiser.shape, stream="probe").double()
    try:
        answers = _answers(denoiser, numbers, times).double().cpu()
    except Exception:
        return 0.0
    # The image in an answer is hardly another for other noise, and may be large in the module's units: only what varies counts.
    answers, noise = answers - answers.mean(0), noise - noise.mean(0)
    scale = float(answers.norm() * noise.norm())
    return float((answers * noise).sum()) / scale if 0 < scale < float("inf") else 0.0


def _turned(name: str, instead: str) -> str:
    return (
        f"{name}: asked about pure noise it answers as a model of the other convention does (here t = 1 is noise, and flow is eps - x0); "
        f"it is probably {instead}."
    )
