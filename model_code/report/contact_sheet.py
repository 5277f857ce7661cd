"""Contact sheets: pictures, and beside each what a painter makes of its caption."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PAIRS = 60  # of a sheet
_COLUMNS, _GAP_PX, _LINE_PX = 5, 6, 12
_LONGEST_PX = 256


def small(picture: NDArray[np.uint8]) -> bytes:
    """A picture uint8 [H, W, 3] as a JPEG of at most 256 pixels a side."""
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_PX, _LONGEST_PX), Image.Resampling.LANCZOS)
    return _jpeg(image)


def sheet(
    pictures: Sequence[NDArray[np.uint8]], painted: Sequence[bytes], names: Sequence[str]
) -> bytes:
    """A JPEG of pairs, left the picture and right the painting (a JPEG), both of the painting's size,
    under their names; row by row."""
    others = [Image.open(io.BytesIO(content)).convert("RGB") for content in painted]
    width, height = (max(sides) for sides in zip(*(other.size for other in others), strict=True))
    step_x, step_y = 2 * width + 2 * _GAP_PX, height + _LINE_PX + _GAP_PX
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    page = Image.new("RGB", (columns * step_x, rows * step_y), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(_LINE_PX - 2)
    for place, (picture, other, name) in enumerate(zip(pictures, others, names, strict=True)):
        x, y = place % columns * step_x, place // columns * step_y
        draw.text((x, y), name, fill="black", font=font)
        source = Image.fromarray(picture).resize(other.size, Image.Resampling.LANCZOS)
        page.paste(source, (x, y + _LINE_PX))
        page.paste(other, (x + width + _GAP_PX // 2, y + _LINE_PX))
    return _jpeg(page)


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=85)
    return out.getvalue()
