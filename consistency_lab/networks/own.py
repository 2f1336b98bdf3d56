"""A network of the user's own in the place of a registered name: a module, or what makes one of (shape, classes)."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from consistency_lab.choices import Choice
from consistency_lab.errors import UserError
from consistency_lab.networks.initialising import initialised

OWN = "own"
_DIGITS = 32  # of a SHA-256, in specs

NetworkMaker = Callable[[tuple[int, int, int], int], nn.Module]


def is_own(choice: str | Choice) -> bool:
    """Whether a choice stands for a network of the user's own (see `own_choice`), so that a spec alone does not build it."""
    choice = Choice.parse(choice)
    return choice.name == OWN and "module" in choice.options


def network_name(choice: str | Choice) -> str:
    """What tables call the network: its registered name, or the name of the user's class."""
    choice = Choice.parse(choice)
    return str(choice.options["module"]) if is_own(choice) else choice.name


def own_network(
    given: nn.Module | NetworkMaker, shape: tuple[int, int, int], classes: int = 0, seed: int = 0
) -> nn.Module:
    """A network to be trained: a copy of a module with its present weights, or what a factory makes from the seed.

    Args:
        given: a module, or a function or class that is called with (shape, classes). ``network(x, t, cond)`` takes noisy images
            ``(B, C, H, W)``, times ``(B,)`` in [0, 1] and labels ``(B,)`` or None, and returns a tensor shaped as the images.
        shape: (C, H, W) of the images.
        classes: number of labels; the label ``classes`` means "no label", as None does. 0 for an unconditional network.
        seed: of a factory's initial weights. The global random state is left as it was.

    Returns:
        The network on the CPU in float32. The module that was given stays as it is.

    Raises:
        UserError: what is no module and makes none; a module that cannot be copied, or be called so.
    """
    with initialised(seed):
        module = given if isinstance(given, nn.Module) else _made(given, shape, classes)
        try:
            module = copy.deepcopy(module).to("cpu", torch.float32)
        except Exception as error:
            raise UserError(f"{_called(module)} cannot be copied ({error}); give a function that makes it.") from error
        if not all(p.is_leaf for p in module.parameters()):  # of TorchScript
            raise UserError(f"a copy of {_called(module)} cannot be trained; give a function that makes it.")
        _check(copy.deepcopy(module).eval(), shape, classes)
    return module


def _made(factory: Any, shape: tuple[int, int, int], classes: int) -> nn.Module:
    if not callable(factory):
        raise UserError(f"a network is a name, a torch module, or a function that makes one, not {factory!r}.")
    try:
        module = factory(shape, classes)
    except TypeError as error:
        raise UserError(
            f"what makes the network was called with (shape, classes) = ({shape}, {classes}) and said: {error}; give the module itself, "
            "or network=lambda shape, classes: Net(...)."
        ) from error
    if not isinstance(module, nn.Module):
        raise UserError(f"what makes the network returned a {type(module).__name__}; let it return a torch module.")
    return module


def _check(network: nn.Module, shape: tuple[int, int, int], classes: int) -> None:
    """Call a network once as training and sampling will; it is a copy, since some change when they are called."""
    x, t = torch.linspace(-1, 1, 2 * math.prod(shape)).view(2, *shape), torch.tensor([0.25, 0.75])
    given = x.clone()
    for cond in (None, torch.tensor([0, classes])) if classes else (None,):
        asked = f"images {tuple(x.shape)}, times (2,) and cond={'None' if cond is None else f'labels up to {classes}'}"
        try:
            with torch.no_grad():
                out = network(x, t, cond)
                again = network(given.clone(), t, cond) if torch.equal(x, given) else out
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{_called(network)} was called as network(x, t, cond) with {asked}, and raised {type(error).__name__}: {error}. Write "
                "forward(self, x, t, cond=None) for noisy images, times in [0, 1], and labels, of which the last and None mean no label."
            ) from error
        if not isinstance(out, Tensor) or out.shape != x.shape:
            gave = tuple(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise UserError(
                f"{_called(network)} was given {asked}, and returned {gave}; return a tensor shaped as the images."
            )
        if not torch.equal(x, given):
            raise UserError(
                f"{_called(network)} writes into the images that it is given, which are needed as they are; write x = x * 0.5 for "
                "x.mul_(0.5), and give a first activation inplace=False."
            )
        if not torch.allclose(out, again, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise UserError(
                f"{_called(network)} answers differently each time that it is asked the same in eval mode; let it draw nothing there: all "
                "randomness of an image is in the noise that it is made from."
            )


def _called(module: nn.Module) -> str:
    return f"the network {type(module).__name__}"


def own_choice(module: nn.Module) -> Choice:
    """How a spec says which network of the user's own was trained: its class, and digests of its code and of its initial weights."""
    options = {"module": type(module).__name__, "code": code_digest(module), "weights": weights_digest(module)}
    return Choice(OWN, options)


def refuse_own(choice: Choice) -> UserError:
    """The error for a spec whose network must be given again."""
    name = network_name(choice)
    return UserError(
        f"this run trained a network of your own, {name}, and holds its weights but not its code; give the network again: "
        f"load_model(FOLDER, network={name}(...)), or train(...) with the same arguments and store, which does not train again."
    )


def weights_digest(module: nn.Module) -> str:
    """SHA-256 (32 hex digits) of the parameters and buffers: names, types, shapes, values, and which of them are trained."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict(keep_vars=True).items()):
        if isinstance(value, Tensor) and not is_lazy(value):  # what training refuses
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} {value.requires_grad}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:_DIGITS]


def code_digest(module: nn.Module) -> str:
    """SHA-256 (32 hex digits) of the modules as they print themselves, and of the code of their classes outside torch.

    So a network whose ``forward`` was edited is another network. What that calls outside of its classes does not enter, and another
    version of Python compiles the same text to other code.
    """
    digest = hashlib.sha256(repr(module).encode())
    classes = {base: None for each in module.modules() for base in type(each).__mro__}
    for base in classes:
        if not base.__module__.startswith(("torch.", "builtins")):
            digest.update(base.__qualname__.rpartition(".")[2].encode())
            for name, code in sorted(_functions(vars(base))):
                digest.update(f"{name} {_text(code)}".encode())
    return digest.hexdigest()[:_DIGITS]


def _functions(members: Mapping[str, Any]) -> Iterator[tuple[str, CodeType]]:
    for name, member in members.items():
        function = getattr(member, "fget", getattr(member, "__func__", member))
        if isinstance(function, FunctionType):
            yield name, function.__code__


def _text(code: CodeType) -> str:
    """Instructions, names and constants, without line numbers and file."""
    constants = [
        _text(x) if isinstance(x, CodeType) else repr(sorted(map(repr, x)) if isinstance(x, frozenset) else x)
        for x in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"
