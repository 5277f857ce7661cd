"""What is wanted of a model's answer, and what it is shown, whatever model it is."""

from __future__ import annotations

import base64
import io
import json
import math
import re

import numpy as np

from model_code.backends import Ask, Picture
from model_code.text import levels
from model_code.text.prompts import HEIGHT_WHITE_M

_UNKNOWN = (0, 0, 160)  # colour where no height is known
# 40.71234, 74.0060° W, 40° 42' N, 40 degrees north, and the words themselves; not 45° roofs or 20 °C.
_COORDINATES = re.compile(
    r"\b\d{1,3}\.\d{4,}|\b(?:latitude|longitude|coordinates?)\b"
    r"|\d\s*(?:°|º|\bdegrees?\b)\s*(?:\.?\d|[,:\s'\"′″’”]|minutes?|seconds?)*"
    r"(?:[NSEW]\b|north\b|south\b|east\b|west\b)"
    r"|\b(?-i:[NSEW])\s*\d{1,3}(?:\.\d+)?\s*°",
    re.IGNORECASE,
)
_BRACES = 64  # at which JSON is looked for from either end of an answer


def tidy(ask: Ask, text: str, *, cut: bool = False) -> str:
    """An answer without what models put around it, in characters that can be kept; `cut` says that it
    was not finished: then whole sentences stay."""
    text = keepable(text).strip()
    if ask.form != "caption":
        return _json_in(text)
    text = " ".join(text.split())
    if cut:
        ends = [found.end() for found in re.finditer(r"[.!?](?=\s|$)", text)]
        return text[: ends[-1]] if ends else ""
    return text


def _json_in(text: str) -> str:
    """The last JSON object in a text that holds the levels, also one inside of another, without the words
    and fences around it: what comes before may be a draft. Where none does, the first of any kind, and the
    text where there is none."""
    start = len(text)
    for _ in range(_BRACES):
        start = text.rfind("{", 0, start)
        if start < 0:
            break
        if levels.parse(_object_at(text, start))[0]:
            return _object_at(text, start)
    start = -1
    for _ in range(_BRACES):
        start = text.find("{", start + 1)
        if start < 0:
            break
        if found := _object_at(text, start):
            return found
    return text


def _object_at(text: str, start: int) -> str:
    """The JSON object that begins there; empty where none does."""
    try:
        return text[start : json.JSONDecoder().raw_decode(text, start)[1]]
    except (ValueError, RecursionError):
        return ""


def keepable(text: str) -> str:
    """A text without control characters and halves of characters, which no table can hold."""
    whole = text.encode("utf-8", "replace").decode()
    return "".join(c for c in whole if c.isprintable() or c.isspace())


def problem(ask: Ask, text: str) -> str:
    """Why a (tidied) answer cannot be used; empty where it can. A caption that tells coordinates
    would be a key to its region."""
    if not text:
        return "an empty answer"
    if ask.form == "caption":
        return "the caption speaks of coordinates" if _COORDINATES.search(text) else ""
    found, why = levels.parse(text)
    return "" if found else f"not the JSON that was asked for ({why})"


def picture_of(ask: Ask) -> Picture | None:
    """What a model is shown: the picture, or the heights as a picture; None for a list of POIs."""
    if ask.kind == "pois":
        return None
    if ask.kind == "heights":
        return None if ask.heights_m is None else height_picture(ask.heights_m)
    return ask.picture


def height_picture(heights_m: np.ndarray) -> Picture:
    """Heights [H, W] as a grey picture [H, W, 3] on a scale that all regions share."""
    known = np.isfinite(heights_m)
    grey = np.clip(np.where(known, heights_m, 0) / HEIGHT_WHITE_M, 0, 1) * 255
    picture = np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)
    picture[~known] = _UNKNOWN
    return picture


def lacking(ask: Ask) -> str:
    """What an ask lacks to be made at all; empty where nothing."""
    if ask.kind == "pois":
        return "" if ask.pois else "there are no points of interest to describe"
    picture = picture_of(ask)
    if picture is None:
        return "there is no picture to describe"
    if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        return f"the picture has shape {list(picture.shape)}, not [height, width, 3]"
    return ""


def png(picture: Picture) -> bytes:
    """A picture as a PNG file, without loss."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(picture: Picture) -> str:
    """A picture as a URL that holds it, so that no server fetches anything."""
    return f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"


def estimated_tokens(ask: Ask) -> int:
    """Tokens that a model reads, where none has said so: those of the prompt, and a patch of 28 pixels
    square of the picture, as Qwen2.5-VL counts."""
    pixels = ask.picture if ask.picture is not None else ask.heights_m
    sides = () if pixels is None else pixels.shape[:2]
    patches = math.prod(math.ceil(side / 28) for side in sides) if sides else 0
    return text_tokens(ask.prompt) + patches


def text_tokens(text: str) -> int:
    """Tokens of a text, where nobody has counted them: four characters each."""
    return math.ceil(len(text) / 4)
