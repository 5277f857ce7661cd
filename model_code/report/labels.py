"""How things are called wherever a person reads them."""

from __future__ import annotations


def method_label(method: str, variant: str) -> str:
    """A method's variant; the default one goes by the method's name alone."""
    return str(method) if variant == "default" else f"{method} · {variant}"
