"""How things are called wherever a person reads them."""

from __future__ import annotations


def method_label(method: str, variant: str) -> str:
    """A method's variant; the default one goes by the method's name alone."""
    return str(method) if variant == "default" else f"{method} · {variant}"


def is_default(variant: str) -> bool:
    """Whether a variant is its method's default, less what its city cannot give (as `variant_name` of
    `methods.run` says)."""
    return variant == "default" or variant.startswith("default_without_")
