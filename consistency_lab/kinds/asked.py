"""What the models of a comparison were asked for, as far as each recorded it: a term an entry, and one text where all have the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_CHANGES = {  # of a pipeline: terms by the fact that says them
    "dtype": "dtype",
    "quantize": "quantiser",
    "lora": "LoRA",
    "cache": "cache",
    "compile": "compiled",
    "offload": "offloaded",
}
_CALL = {"steps": "solver steps", "guidance": "guidance", "size": "size", "call": "further arguments"}
TERMS = (
    *("pipeline", "scheduler", *_CALL.values(), "network evaluations", *_CHANGES.values()),
    *("prompts", "labels of its own", "images made together", "space"),
)
_NAMED = 3  # prompts that an entry holds


def asked(model: Mapping[str, Any]) -> dict[str, str]:
    """What one model recorded of it, by term."""
    is_pipeline = model.get("kind") == "pipeline"
    found: dict[str, Any] = {
        "pipeline": model.get("class") or model.get("pipeline"),
        "scheduler": model.get("scheduler"),
        "guidance": model.get("guidance"),
        "dtype": model.get("dtype"),
        "space": model.get("space"),
    }
    if is_pipeline:  # steps and batch of a run are those of its training
        found |= {term: model.get(fact) for fact, term in (_CALL | _CHANGES).items()}
        found |= {"network evaluations": model.get("evaluations"), "images made together": model.get("batch")}
        found |= {"prompts": _few(model.get("prompts")), "labels of its own": _text(model.get("labels"))}
        found["size"] = "x".join(map(str, model["size"])) if model.get("size") else None
    return {term: _text(found[term]) for term in TERMS if found.get(term) not in (None, "")}


def asked_of_each(models: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The terms that any model recorded, with the text of each model."""
    told = [asked(model) for model in models]
    return {
        term: [own.get(term) or _silent(model, term) for own, model in zip(told, models, strict=True)]
        for term in TERMS
        if any(term in own for own in told)
    }


def told_together(models: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """As (term, text): the text that all share, or each model's behind its name."""
    return [
        (term, texts[0])
        if len(set(texts)) == 1
        else (term, "; ".join(f"{model.get('name')}: {text}" for model, text in zip(models, texts, strict=True)))
        for term, texts in asked_of_each(models).items()
    ]


def _silent(model: Mapping[str, Any], term: str) -> str:
    if model.get("kind") != "pipeline":
        return "not recorded"
    return "its own" if term in _CALL.values() else "none"


def _few(prompts: Any) -> str:
    if not prompts:
        return ""
    first = ", ".join(repr(prompt) for prompt in prompts[:_NAMED])
    return f"{len(prompts)} in turn: {first}{', ...' if len(prompts) > _NAMED else ''}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={inner}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
