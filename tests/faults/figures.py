"""What a program has to say: figures under a title, and `Broken` when a promise was."""

from __future__ import annotations

from collections.abc import Mapping

Figures = dict[str, object]


class Broken(AssertionError):
    """A promise of docs/guarantees.md is not kept; the text says which and how."""


def promise(kept: object, otherwise: str) -> None:
    """Raises `Broken` unless it is kept."""
    if not kept:
        raise Broken(otherwise)


def show(title: str, figures: Mapping[str, object]) -> None:
    width = max((len(name) for name in figures), default=0)
    print(f"\n{title}", *(f"  {name:<{width}}  {_text(value)}" for name, value in figures.items()), sep="\n", flush=True)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(each)}" for name, each in sorted(value.items(), key=str)) or "none"
    if isinstance(value, list | tuple):
        return "; ".join(map(_text, value)) or "none"
    return str(value)
