"""Specs in words: in what a run differs from the defaults, and in what runs differ from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from consistency_lab.choices import Choice, Names
from consistency_lab.training.settings import LoopSettings

Settings = Mapping[str, Any]  # as a spec has them: see `LoopSettings.spec`


def changed_settings(settings: Settings, defaults: LoopSettings, registries: Mapping[str, Names]) -> list[str]:
    """The settings that are not at their defaults, each as ``key=value``; of a choice, the options that are not at theirs.

    Args:
        settings: of a spec.
        defaults: what they are compared with.
        registries: setting -> where its choice is looked up; of others every option is shown.
    """
    standard, said = defaults.values, []
    for key in [*(k for k in standard if k in settings), *(k for k in settings if k not in standard)]:
        value = settings[key]
        if key == "seeds":
            said += _seeds(value)
        elif isinstance(value, dict) and "module" in value:  # a network of the user's own
            said.append(f"{key}={value['module']}(code {value['code'][:4]}, weights {value['weights'][:4]})")
        elif isinstance(value, dict):
            known = registries[key].options(value["name"]) if _known(registries, key, value["name"]) else {}
            options = {
                k: v for k, v in value.items() if k != "name" and not (k in known and _plain(known[k]) == _plain(v))
            }
            if (text := str(Choice(value["name"], options))) != _shortest(standard.get(key), registries.get(key)):
                said.append(f"{key}={text}")
        elif key not in standard or value != standard[key]:
            said.append(f"{key}={value}")
    return said


def _known(registries: Mapping[str, Names], key: str, name: str) -> bool:
    return key in registries and name in registries[key].names()


def _shortest(choice: Choice | None, registry: Names | None) -> str:
    """A default choice without options that are the builder's own."""
    choice = choice or Choice("none")
    own = registry.options(choice.name) if registry and choice.name in registry.names() else {}
    return str(Choice(choice.name, {k: v for k, v in choice.options.items() if own.get(k) != v}))


def _seeds(seeds: Mapping[str, int]) -> list[str]:
    if len(set(seeds.values())) == 1:
        return [f"seed={seed}" for seed in set(seeds.values()) if seed]
    return [f"{stream}_seed={seed}" for stream, seed in seeds.items()]


def differences(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each of several specs has that not all have alike, as ``key=value, ...``; empty texts where all are alike."""
    flat = [_flat({**spec["settings"], **{k: v for k, v in spec.items() if k != "settings"}}) for spec in specs]
    keys = [key for key in dict.fromkeys(k for each in flat for k in each) if len({each.get(key) for each in flat}) > 1]
    names = {key.removesuffix(".name") for key in keys if key.endswith(".name")}
    # Where the names of choices differ, their options are other options.
    shown = [key for key in keys if key.endswith(".name") or key.rpartition(".")[0] not in names]
    return [", ".join(f"{_short(key)}={each[key]}" for key in shown if key in each) for each in flat]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = str(value)[:8] if key in _DIGESTS and value is not True else str(value)
    return found


_DIGESTS = ("fingerprint", "weights", "code", "factors", "mirrored")


def _short(key: str) -> str:
    return key.removesuffix(".name").removeprefix("seeds.")


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
