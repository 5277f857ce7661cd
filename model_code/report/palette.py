"""The colours that pictures and the page share; every palette can be told apart when colour-blind.

Sequential: viridis. Diverging: ColorBrewer's RdBu with a middle that shows on white, blue for too
low. Qualitative: Okabe and Ito's
colours, then Paul Tol's muted ones, then lighter repeats.
"""

from __future__ import annotations

SEQUENTIAL = (
    "#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30",
    "#fde725",
)  # fmt: skip
# Under lines that have to stand out.
PALE = ("#eef3f3", "#b9d5d6", "#6fadb1", "#2f8389")
DIVERGING = (
    "#2166ac", "#4393c3", "#8fbfdd", "#c4d9e6", "#e6e6e3", "#f2cdb9", "#f0a07c", "#d6604d",
    "#b2182b",
)  # fmt: skip
# On a dark page the middle is dark, so that lightness still falls towards zero error.
DIVERGING_DARK = (
    "#8ecbff", "#5b9fe0", "#3f74a8", "#38536d", "#373b42", "#5e4440", "#9a5340", "#d8704f",
    "#ffab88",
)  # fmt: skip
_DISTINCT = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#882255",
    "#999933", "#332288", "#661100", "#aa4499",
)  # fmt: skip

INK = "#1d2433"
FAINT = "#6b7280"
LINE = "#d5d9e0"
MISSING = "#e6e7ea"
MISSING_LINE = "#a3a8b2"
ACCENT = "#0b6e75"
LINES = "#c8500a"


def qualitative(count: int) -> list[str]:
    """`count` colours for classes; from the 13th on they repeat, each time lighter."""
    return [
        _lighter(_DISTINCT[i % len(_DISTINCT)], i // len(_DISTINCT)) for i in range(max(count, 1))
    ]


def _lighter(colour: str, steps: int) -> str:
    keep = 0.55**steps
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - (255 - part) * keep):02x}" for part in parts)
