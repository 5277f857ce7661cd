"""Does the score of captions work? Captions that are true and their corrupted twins, and how often
each score ranks the true one higher.

Pictures are those of `model_code.demo.pairs`, rendered apart from every city and from other draws
than the scoring CLIP trains on, or the own pictures of an embedded city. Sentences are those of
`model_code.demo.pairs`, in other words than the captioner's. For pictures of which nobody knows the
truth, captions that are there can be swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from model_code.backends import Ask, Clip, Painter, Picture, Segmenter, View
from model_code.calibration import CalibrationConfig, score
from model_code.demo.fields import stream
from model_code.demo.pairs import (
    ADJECTIVES,
    ELEMENTS,
    Facts,
    Mention,
    mention,
    satellite_facts,
    say,
    street_facts,
)
from model_code.text.captioner import TemplateCaptioner
from model_code.text.parsing import parse
from model_code.vision.segmentation import LandCoverSegmenter, StreetSegmenter

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("drop", "add", "exaggerate", "swap")
SMALL = ("drop_small", "add_small")
OWN = ("own_misstated", "own_swap")
RANKED = ("perception_score", "clip_score", "cycle_score")
MISSTATED = 0.1  # a share that a caption tells is off by more than this
Shown = tuple[Sequence[Picture], Sequence[Facts]]  # pictures, and of each what it shows


@dataclass(frozen=True)
class Twins:
    """A true caption of the picture at `position` and the same caption made wrong."""

    position: int
    kind: str
    true: str
    wrong: str


def proof(
    view: View,
    painter: Painter | None,
    segmenter: Segmenter | None,
    clip: Clip,
    config: CalibrationConfig,
    *,
    shown: Shown,
    seed: int,
) -> pd.DataFrame:
    """How often each score ranks the true caption higher, over pictures `shown`.

    Returns:
        `view`, `kind` (of corruption; `all` is `KINDS` together, `own` is `OWN`), `pairs`, and for each of `RANKED`
        the share of the pairs that it ranks rightly (a tie is not right; NaN where it has no score).
        `KINDS` touch elements that fill a share of the picture; `SMALL` are about things of a few
        pixels, such as cars, which no pixel shares can resolve; `OWN` are of the captioner's words.
    """
    pictures, facts = shown
    twins = twins_of(view, facts, seed) + own_words(view, pictures, seed)
    return ranked(view, judged(pictures, twins, painter, segmenter, clip, config, seed))


def held_out(view: View, count: int, seed: int) -> Shown:
    """Pictures of no city, which no CLIP trains on."""
    facts_of = street_facts if view == "street_view" else satellite_facts
    pictures, facts = facts_of(count, seed, "proof")
    return list(pictures), facts


def twins_of(view: View, facts: Sequence[Facts], seed: int) -> list[Twins]:
    """The corruptions that a caption of each picture allows."""
    rng = stream(seed, f"proof/{view}/texts")
    said = [mention(view, fact, rng, _THOROUGH) for fact in facts]
    return corrupted(view, facts, said, rng)


def swapped(texts: Sequence[str], rng: np.random.Generator) -> list[Twins]:
    """Each picture with its own text and with that of the next one in a random round; pairs of equal
    texts are left out."""
    order = rng.permutation(len(texts))
    return [
        Twins(int(i), "swap", texts[i], texts[other])
        for i, other in zip(order, np.roll(order, 1), strict=True)
        if texts[i] != texts[other]
    ]


def asks_of(view: View, pictures: Sequence[Picture], seed: int) -> list[Ask]:
    """What the template captioner is asked of pictures, with shares by the embedded segmenter."""
    found = (StreetSegmenter() if view == "street_view" else LandCoverSegmenter()).segment(pictures)
    return [
        Ask(view, picture, dict(zip(found.classes, row, strict=True)), seed=seed + i)
        for i, (picture, row) in enumerate(
            zip(pictures, np.asarray(found.shares).tolist(), strict=True)
        )
    ]


def own_words(view: View, pictures: Sequence[Picture], seed: int) -> list[Twins]:
    """The template captioner's caption of each picture: with one that tells the shares of one element as
    those of another, and with that of another picture."""
    asks = asks_of(view, pictures, seed)
    true, wrong = (
        [answer.text for answer in TemplateCaptioner(share).caption(asks)] for share in (0.0, 1.0)
    )
    misstated = [
        Twins(i, OWN[0], a, b) for i, (a, b) in enumerate(zip(true, wrong, strict=True)) if a != b
    ]
    others = swapped(true, stream(seed, f"proof/{view}/own"))
    return misstated + [replace(twin, kind=OWN[1]) for twin in others]


def corrupted(
    view: View, facts: Sequence[Facts], said: Sequence[Sequence[Mention]], rng: np.random.Generator
) -> list[Twins]:
    """The twins of each true caption `said` [B]; what stays true stays worded as it was."""
    variants = [int(rng.integers(2**31)) for _ in said]
    texts = [say(view, mentions, v) for mentions, v in zip(said, variants, strict=True)]
    large = _AREAS[view]
    small = _COUNTED[view]
    makers: dict[str, tuple[Callable[..., list[Mention] | None], Sequence[str]]] = {
        "drop": (_dropped, large),
        "add": (_added, large),
        "exaggerate": (_exaggerated, large),
        "drop_small": (_dropped, small),
        "add_small": (_added, small),
    }
    twins = []
    for i, mentions in enumerate(said):
        for kind, (make, elements) in makers.items():
            wrong = make(view, facts[i], list(mentions), elements, rng)
            if wrong is not None:
                twins.append(Twins(i, kind, texts[i], say(view, wrong, variants[i])))
    return twins + swapped(texts, rng)


def _dropped(
    view: View, facts: Facts, said: list[Mention], elements: Sequence[str], rng: np.random.Generator
) -> list[Mention] | None:
    """Without one thing that is plainly there."""
    plain = [i for i, m in enumerate(said) if m.level >= 2 and m.element in elements]
    if not plain or sum(m.level > 0 and m.element not in ADJECTIVES for m in said) < 2:
        return None
    gone = int(rng.choice(plain))
    return said[:gone] + said[gone + 1 :]


def _added(
    view: View, facts: Facts, said: list[Mention], elements: Sequence[str], rng: np.random.Generator
) -> list[Mention] | None:
    """With a thing that is not there."""
    named = {m.element for m in said if m.level}
    absent = [
        name
        for name in elements
        if name not in named and ELEMENTS[view][name].level(facts[name]) == 0
    ]
    if not absent:
        return None
    extra = Mention(
        str(rng.choice(absent)), int(rng.integers(2, 4)), None, int(rng.integers(2**31))
    )
    place = int(rng.integers(len(said) + 1))
    kept = [m for m in said if m.element != extra.element]  # no text denies what it names
    return [*kept[:place], extra, *kept[place:]]


def _exaggerated(
    view: View, facts: Facts, said: list[Mention], elements: Sequence[str], rng: np.random.Generator
) -> list[Mention] | None:
    """With far more of a thing than is there: two levels up, or 35 points where percent are given."""
    few = [
        i
        for i, m in enumerate(said)
        if m.element in elements and (m.percent or 30) < 60 and 1 <= m.level <= 2
    ]
    if not few:
        return None
    i = int(rng.choice(few))
    percent = said[i].percent
    more = replace(
        said[i], level=said[i].level + 2, percent=percent if percent is None else percent + 35
    )
    return [*said[:i], more, *said[i + 1 :]]


# Elements that fill a share of the picture; without roads from above and pavements, which are in
# every picture in about the same share.
_AREAS: dict[View, tuple[str, ...]] = {
    "satellite": ("buildings", "greenery", "water", "industry", "soil", "grass", "paved"),
    "street_view": ("greenery", "buildings", "sky", "road", "water"),
}
_COUNTED: dict[View, tuple[str, ...]] = {
    "satellite": (),
    "street_view": ("cars", "people", "sheds", "shops", "trucks"),
}
_THOROUGH = (0.7, 1.0)


def misstatement(text: str, view: View, classes: Sequence[str], shares: Sequence[float]) -> float:
    """The most by which a caption misstates the share of an element; `shares` [K] of the picture."""
    measured = dict(zip(classes, shares, strict=True))
    told = parse(text, view).items()
    gaps = [abs(a.share - measured[n]) for n, a in told if a.share is not None and n in measured]
    return float(max(gaps, default=0.0))


def judged(
    pictures: Sequence[Picture],
    twins: Sequence[Twins],
    painter: Painter | None,
    segmenter: Segmenter | None,
    clip: Clip,
    config: CalibrationConfig,
    seed: int,
) -> pd.DataFrame:
    """`position`, `kind`, `true`, `wrong` of each pair, and each of `RANKED` of both captions, with
    `_true` and `_wrong` behind its name. Both captions are painted from one seed."""
    import pandas as pd

    shares = np.full((len(pictures), 1), np.nan)
    if segmenter is not None:
        shares = np.asarray(segmenter.segment(pictures).shares)
    columns = [field.name for field in fields(Twins)]
    table = pd.DataFrame([vars(twin) for twin in twins], columns=columns)
    # A true caption has several twins: each pair of picture and text is scored once.
    asked = pd.concat(
        [table[["position", side]].set_axis(["position", "text"], axis=1) for side in _SIDES]
    ).drop_duplicates(ignore_index=True)
    at = asked["position"].to_numpy()
    scores = score(
        [pictures[i] for i in at],
        shares[at],
        asked["text"].tolist(),
        painter,
        segmenter,
        clip,
        config,
        [seed + int(i) for i in at],
    )
    scored = pd.concat([asked, scores[list(RANKED)]], axis=1)
    for side in _SIDES:
        named = scored.rename(columns={"text": side, **{c: f"{c}_{side}" for c in RANKED}})
        table = table.merge(named, on=["position", side], how="left")
    return table


_SIDES = ("true", "wrong")


def ranked(view: View, pairs: pd.DataFrame) -> pd.DataFrame:
    """The shares of `proof` from the table of `judged`."""
    import pandas as pd

    def share(part: pd.DataFrame, name: str) -> float:
        difference = (part[f"{name}_true"] - part[f"{name}_wrong"]).dropna()
        return float((difference > 0).mean()) if len(difference) else float("nan")

    together = {"all": KINDS, "own": OWN}
    parts = [(name, pairs[pairs["kind"].isin(kinds)]) for name, kinds in together.items()]
    parts[1:1] = [(kind, pairs[pairs["kind"] == kind]) for kind in (*KINDS, *SMALL)]
    parts += [(kind, pairs[pairs["kind"] == kind]) for kind in OWN]
    return pd.DataFrame(
        [
            {"view": view, "kind": kind, "pairs": len(part)}
            | {name: share(part, name) for name in RANKED}
            for kind, part in parts
            if len(part)
        ]
    )
