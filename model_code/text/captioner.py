"""A captioner that runs anywhere: sentences from what is measured in a picture, a height map or a
list of POIs, each from its own modality alone.

It words freely, differently for each seed, and errs now and then as captioners do: it overlooks an
element, misjudges a share, or mixes up left and right. Whether it errs is drawn anew at each try.
Descriptions in three levels add what common sense says of such a place (`text.uses`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_code.backends import Answer, Ask, Identity, Picture
from model_code.fingerprint import code_digests, digest
from model_code.hours import HOURS
from model_code.text import uses
from model_code.text.levels import Levels as ThreeLevels
from model_code.vision.segmentation import LandCoverSegmenter, StreetSegmenter

MAX_WORDS = 60
_ERROR, _WARM_ERROR = 0.06, 0.10  # chance of an error in a caption, and more of it a degree
_LEAST_SHARE = 0.002

_FRACTIONS = (
    (3 / 4, "three quarters"), (2 / 3, "two thirds"), (1 / 2, "half"), (1 / 3, "a third"),
    (1 / 4, "a quarter"), (1 / 5, "a fifth"), (1 / 10, "a tenth"),
)  # fmt: skip

# From which share on each wording holds; the first is for what is not there.
Levels = Sequence[tuple[float, Sequence[str]]]
_STREET_SMALL: Mapping[str, Levels] = {
    "tree": (
        (0.0, ("no trees", "no greenery")),
        (0.008, ("a small tree", "hardly any greenery")),
        (0.02, ("a few small trees", "some greenery")),
    ),
    "car": (
        (0.0, ("no cars", "no vehicles")),
        (0.002, ("a single car", "one car")),
        (0.006, ("a few cars", "two or three cars", "some vehicles")),
        (0.015, ("many cars", "lots of traffic", "plenty of vehicles")),
    ),
    "person": (
        (0.0, ("no people", "no pedestrians")),
        (0.0008, ("a lone pedestrian", "one or two people")),
        (0.0025, ("a few people", "some pedestrians")),
        (0.005, ("many people", "plenty of pedestrians", "a lot of passers-by")),
    ),
    "signboard": (
        (0.0, ("no shops", "no shop signs")),
        (0.002, ("a small shop sign", "one shop")),
        (0.006, ("a few shop signs", "some storefronts")),
        (0.018, ("many bright shop signs", "plenty of storefronts", "lots of shops")),
    ),
    "water": (
        (0.0, ("no water",)),
        (0.006, ("a glimpse of water", "a little water")),
        (0.018, ("a stretch of water", "some water behind a railing")),
        (0.04, ("a wide river alongside", "much water beside the road")),
    ),
    "grass": (
        (0.0, ("no grass",)),
        (0.004, ("a narrow strip of grass", "a little grass")),
        (0.025, ("green verges", "grass along the kerb")),
    ),
}  # fmt: skip
_STREET_WIDE = {
    "sky": ("sky", "open sky"),
    "building": ("buildings", "facades", "houses"),
    "road": ("road", "asphalt"),
    "tree": ("trees", "foliage", "greenery"),
    "sidewalk": ("pavement", "sidewalk"),
    "water": ("water",),
}
_LAND_WIDE = {
    "background": ("paved ground", "grey paved land"),
    "building": ("roofs", "buildings", "houses"),
    "industrial": ("industrial sheds", "metal roofs", "warehouses"),
    "road": ("streets", "roads"),
    "water": ("water", "river"),
    "barren": ("bare soil", "bare ground", "dry open land"),
    "forest": ("trees", "woodland", "tree cover"),
    "grass": ("grass", "meadows", "grassland"),
}
_UPKEEP = (
    (0.670, ("run-down", "shabby", "neglected")),
    (0.690, ("somewhat worn", "weathered")),
    (0.715, ("", "ordinary")),
    (9.0, ("well-kept", "tidy", "neat")),
)  # brightness of walls and pavement against the sky, up to which each wording holds


@dataclass
class _Look:
    """What is seen in a picture: shares by class, and where the pixels of each lie."""

    shares: dict[str, float]
    labels: NDArray[np.uint8]
    classes: tuple[str, ...]
    picture: Picture
    flipped: bool = False

    def mask(self, name: str) -> NDArray[np.bool_]:
        return np.asarray(self.labels == self.classes.index(name))

    def side(self, name: str) -> str:
        """left | right | both | "" (too little to say)."""
        mask = self.mask(name)
        half = mask.shape[1] // 2
        left, right = int(mask[:, :half].sum()), int(mask[:, half:].sum())
        if left + right < 0.004 * mask.size:
            return ""
        lean = (right - left) / (left + right) * (-1 if self.flipped else 1)
        return "both" if abs(lean) < 0.4 else "right" if lean > 0 else "left"


class TemplateCaptioner:
    """Captions without a model to download. At most `MAX_WORDS` words a caption.

    Args:
        wrong_share: of the captions of pictures, made wrong on purpose: they tell the shares of one
            element as those of another. Drawn anew at each try.
    """

    def __init__(self, wrong_share: float = 0.0) -> None:
        settings = {"wrong_share": wrong_share} if wrong_share else {}
        revision = digest(code_digests([__name__]))[:12]
        self.identity = Identity("TemplateCaptioner", revision, settings)
        self.wrong_share = wrong_share
        self._segmenters = {"satellite": LandCoverSegmenter(), "street_view": StreetSegmenter()}

    def caption(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer an ask, in order; an ask that cannot be answered is an `Answer` with an error."""
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Answer:
        rng = np.random.default_rng(_key(ask))
        if ask.form != "caption":
            return _of_levels(ask, rng)
        if ask.kind == "heights":
            return _of_heights(ask, rng)
        if ask.kind == "pois":
            return _of_pois(ask, rng)
        if ask.picture is None:
            return Answer(error="there is no picture to describe")
        shares = {k: float(v) for k, v in ask.shares.items() if np.isfinite(v)}
        if not shares:
            return _of_tones(ask.kind == "satellite", ask.picture, rng)
        segmenter = self._segmenters[ask.kind]
        labels = segmenter.label([ask.picture])[0]
        look = _Look(shares, labels, segmenter.classes, ask.picture)
        _err(look, ask.temperature, rng)
        lie = np.random.default_rng((_key(ask), 1))
        if lie.random() < self.wrong_share:
            look.shares = dict(
                zip(look.shares, lie.permutation([*look.shares.values()]), strict=True)
            )
        tell = _of_chip if ask.kind == "satellite" else _of_street
        return Answer(_short(tell(look, rng)))


def _key(ask: Ask) -> int:
    """The seed of an ask: its content and its settings."""
    parts = hashlib.sha256(repr((ask.kind, ask.seed, float(ask.temperature))).encode())
    if ask.form != "caption":
        parts.update(ask.form.encode())
    parts.update(repr(sorted((k, round(float(v), 6)) for k, v in ask.shares.items())).encode())
    parts.update(repr([tuple(poi) for poi in ask.pois]).encode())
    for array in (ask.picture, ask.heights_m):
        if array is not None:
            parts.update(np.ascontiguousarray(array).tobytes())
    return int.from_bytes(parts.digest()[:8], "little")


def _err(look: _Look, temperature: float, rng: np.random.Generator) -> None:
    """Now and then: overlook an element, misjudge a share, mix up the sides."""
    fails, which, kind = rng.random(), rng.random(), rng.random()
    if fails >= _ERROR + _WARM_ERROR * temperature:
        return
    seen = [name for name, share in look.shares.items() if share > 0.02]
    if not seen:
        return
    name = seen[int(which * len(seen))]
    if kind < 0.4:
        look.shares[name] = 0.0
    elif kind < 0.8:
        look.shares[name] = min(0.9, look.shares[name] * (2.2 if kind < 0.6 else 0.4))
    else:
        look.flipped = True


# --- street views --------------------------------------------------------------------------------


def _of_street(look: _Look, rng: np.random.Generator) -> list[str]:
    pick = _picker(rng)
    light = _light(look.picture)
    when = (
        pick(("at night", "after dark")) if light < 112
        else pick(("at dusk", "in the evening")) if light < 155
        else pick(("by day", "in daylight", "on a bright day", ""))
    )  # fmt: skip
    kept = _upkeep(look, light)
    care = pick(next(words for limit, words in _UPKEEP if kept < limit)) if kept else ""
    width = pick(("wide", "broad")) if look.shares.get("road", 0) > 0.335 else ""
    kind = pick(("street", "road scene", "street scene"))
    adjectives = " ".join(word for word in (care, width if kind == "street" else "") if word)
    opener = pick(("{}", "View down {}", "This is {}", "{} seen from the roadway"))
    scene = opener.format(_article(f"{adjectives} {kind} {when}".strip()))

    wide = sorted(_STREET_WIDE, key=lambda name: -look.shares.get(name, 0))
    wide = [name for name in wide if look.shares.get(name, 0) >= 0.05][:4]
    quantities = [(pick(_STREET_WIDE[name]), look.shares[name]) for name in wide]
    sentences = [f"{scene}.", *_quantities(quantities, pick)]
    there: list[str] = []
    absent: list[str] = []
    for name, levels in _STREET_SMALL.items():
        if name in wide:
            continue
        share = look.shares.get(name, 0)
        words = [wordings for limit, wordings in levels if share >= limit][-1]
        present = words is not levels[0][1]
        if present or (name != "grass" and rng.random() < 0.7):
            (there if present else absent).append(pick(words))
    if there:
        sentences.append(pick(("One sees {}.", "{} can be seen.", "Also {}.")).format(_list(there)))
    if absent:
        sentences.append(f"{pick((_there_is(absent), 'It has'))} {_list(absent)}.")
    sides = _street_sides(look, pick)
    return [*sentences, sides] if sides else sentences


def _street_sides(look: _Look, pick: Callable[[Sequence[str]], str]) -> str:
    said = []
    for name, words in (
        ("tree", "trees stand"),
        ("building", "houses rise"),
        ("water", "water lies"),
    ):
        side = look.side(name) if look.shares.get(name, 0) > 0.03 else ""
        if side in ("left", "right"):
            said.append(f"{words} mainly on the {side}")
        elif side == "both" and name == "tree":
            said.append(pick(("trees line both sides", "")))
    roofs = look.mask("building")
    columns = roofs.any(axis=0)
    if not said and columns.mean() > 0.5:
        spread = float(np.std(roofs.argmax(axis=0)[columns]) / len(roofs))
        said.append(pick(("the skyline is even",)) if spread < 0.1 else "the skyline is uneven")
    return f"{_capital(_list([s for s in said[:2] if s]))}." if any(said) else ""


def _light(picture: Picture) -> float:
    """Brightness of the sky: the ninth decile of the upper half."""
    upper = picture[: len(picture) // 2].mean(axis=2)
    return float(np.quantile(upper, 0.9))


def _upkeep(look: _Look, light: float) -> float:
    """Brightness of pavement and walls against the sky; stains and soot darken them. 0: unseen."""
    brightness = look.picture.mean(axis=2)
    labels = look.labels
    if brightness.shape != labels.shape:
        rows = np.arange(labels.shape[0]) * brightness.shape[0] // labels.shape[0]
        columns = np.arange(labels.shape[1]) * brightness.shape[1] // labels.shape[1]
        brightness = brightness[np.ix_(rows, columns)]
    parts = [brightness[look.mask(name)] for name in ("sidewalk", "building")]
    if min(len(part) for part in parts) < 40:
        return 0.0
    return float((0.75 * parts[0].mean() + 0.25 * parts[1].mean()) / max(light, 1))


# --- chips ---------------------------------------------------------------------------------------


def _of_chip(look: _Look, rng: np.random.Generator) -> list[str]:
    pick = _picker(rng)
    share = look.shares.get
    built = share("building", 0) + share("industrial", 0)
    if share("water", 0) > 0.3:
        theme = pick(("a waterside area", "land by a wide river"))
    elif share("forest", 0) > 0.4:
        theme = pick(("a wooded area", "a leafy district" if built > 0.1 else "wooded country"))
    elif share("industrial", 0) > max(0.12, share("building", 0)):
        theme = pick(("an industrial district", "an area of industry"))
    elif share("barren", 0) + share("grass", 0) > 0.4 and built < 0.15:
        theme = pick(("open country", "thinly settled land"))
    elif share("building", 0) > 0.15:
        theme = pick(("a residential area", "a closely built neighbourhood"))
    else:
        theme = pick(("a part of a city", "an urban area"))
    opener = pick(("Satellite image of {}", "Seen from above: {}", "An aerial view of {}",
                   "From the air, {}"))  # fmt: skip
    names = [name for name in _LAND_WIDE if share(name, 0) >= 0.04]
    names = sorted(names, key=lambda name: -share(name, 0))
    wide, narrow = names[:5], names[5:]
    quantities = [(pick(_LAND_WIDE[name]), share(name, 0)) for name in wide]
    sentences = [f"{opener.format(theme)}.", *_quantities(quantities, pick)]
    there, absent = [], []
    for name in _LAND_WIDE:
        if name in wide:
            continue
        noun = pick(_LAND_WIDE[name])
        if name in narrow or share(name, 0) > 0.012:
            there.append(f"{'a few' if _plural(noun) else 'a little'} {noun}")
        elif name in ("water", "forest", "industrial", "building", "barren") and rng.random() < 0.7:
            absent.append(f"no {noun}")
    if there:
        sentences.append(pick(("Also {}.", "One makes out {}.")).format(_list(there)))
    if absent:
        sentences.append(f"{pick(('It has', _there_is(absent)))} {_list(absent)}.")
    places = [_place(look, name) for name in ("water", "forest", "barren")]
    return sentences + [f"{_capital(place)}." for place in places if place][:1]


def _place(look: _Look, name: str) -> str:
    """Where a large element lies, if it lies anywhere in particular."""
    if not 0.05 < look.shares.get(name, 0) < 0.6:
        return ""
    mask = look.mask(name)
    if mask.mean() < 0.03:
        return ""
    rows, columns = np.nonzero(mask)
    down, across = rows.mean() / mask.shape[0] - 0.5, columns.mean() / mask.shape[1] - 0.5
    across = -across if look.flipped else across
    row = ("upper", "lower")[int(down > 0)] if abs(down) > 0.08 else ""
    column = ("left", "right")[int(across > 0)] if abs(across) > 0.08 else ""
    noun = {"water": "the water", "forest": "the trees", "barren": "the bare soil"}[name]
    verb = "stand" if name == "forest" else "lies"
    if not row and not column:
        spread = rows.std() / mask.shape[0]
        return f"{noun} {verb} {'in the middle' if spread < 0.2 else 'on all sides'}"
    where = f"{row} {column}" if row and column else f"{row or column} side"
    return f"{noun} {verb} mainly towards the {where}"


# --- heights, POIs, pictures that were not segmented ---------------------------------------------


def _of_heights(ask: Ask, rng: np.random.Generator) -> Answer:
    pick = _picker(rng)
    heights = np.asarray(ask.heights_m if ask.heights_m is not None else [], np.float64)
    known = heights[np.isfinite(heights)]
    if not known.size:
        return Answer(error="no building height is known here")
    built = known[known > 0]
    if not built.size:
        return Answer("Open ground: no building rises here.")
    typical, tallest = float(np.median(built)), float(built.max())
    floors = max(1, round(typical / 3.2))
    kind = next(word for limit, word in ((10, "low"), (16, "mid-rise"), (30, "tall"), (1e9, "very tall"))
                if typical < limit)  # fmt: skip
    covered = built.size / heights.size
    sentences = [
        pick(("Mostly {} buildings of about {} {}.", "{} buildings, typically of {} {}.")).format(
            kind, floors, "storey" if floors == 1 else "storeys"
        ),
        pick(("The tallest reaches about {:.0f} metres.", "The highest rises to some {:.0f} metres."))
        .format(tallest),
        pick(("Buildings with a known height cover {} of the ground.",
              "{} of the ground is built on, as far as heights are known.")).format(
            _how_much(covered, pick)
        ),
    ]  # fmt: skip
    spread = float(np.std(built) / max(np.mean(built), 0.1))
    sentences.append("Heights vary a lot." if spread > 0.6 else "Roofs are much of a height."
                     if spread < 0.25 else "Heights vary somewhat.")  # fmt: skip
    if tallest > 3 * typical and tallest > 25:
        sentences.append(pick(("A few towers stand out.", "Single towers stand out.")))
    return Answer(_short(sentences))


def _of_pois(ask: Ask, rng: np.random.Generator) -> Answer:
    pick = _picker(rng)
    if not ask.pois:
        return Answer(
            pick(("No points of interest are listed here.", "No place of note is listed."))
        )
    counts = Counter(category.replace("_", " ").strip() or "other" for _, category in ask.pois)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    total = len(ask.pois)
    size = next(word for limit, word in ((3, "A handful of places"), (15, "A few places"),
                (60, "Many places"), (10**9, "A very dense mix of places")) if total <= limit)  # fmt: skip
    shares = [f"{category} ({_how_much(number / total, pick)})" for category, number in ranked[:4]]
    sentences = [f"{size}, {pick(('led by', 'above all', 'mainly'))} {_list(shares)}."]
    if ranked[4:]:
        sentences.append(f"There are also {_list([category for category, _ in ranked[4:8]])}.")
    named = sorted({name.strip() for name, _ in ask.pois if name.strip()})
    if named:
        some = [named[i] for i in sorted(rng.permutation(len(named))[:2])]
        sentences.append(f"Among them {pick(('is', 'one finds'))} {_list(some)}.")
    return Answer(_short(sentences))


def _of_tones(from_above: bool, picture: Picture, rng: np.random.Generator) -> Answer:
    """A picture without shares, such as a black-and-white photograph: light and dark alone."""
    pick = _picker(rng)
    grey = picture.mean(axis=2)
    if min(grey.shape) < 4:
        return Answer(error="the picture is too small to describe")
    tinted = float(np.ptp(picture.astype(np.float32), axis=2).mean()) > 12
    what = "aerial picture" if from_above else "photograph of a street"
    kind = "" if tinted else pick(("black-and-white ", "grey "))
    third = len(grey) // 3
    top, bottom = float(grey[:third].mean()), float(grey[-third:].mean())
    tone = "bright" if grey.mean() > 150 else "dark" if grey.mean() < 85 else "evenly lit"
    sentences = [f"{_article(f'{kind}{what}')}, {tone}."]
    if abs(top - bottom) > 25:
        sentences.append(f"It is brighter {'above' if top > bottom else 'below'}.")
    contrast = float(grey.std())
    sentences.append("Contrast is strong." if contrast > 60 else "Contrast is weak."
                     if contrast < 25 else "Contrast is moderate.")  # fmt: skip
    return Answer(_short(sentences))


# --- descriptions in three levels ----------------------------------------------------------------


def _of_levels(ask: Ask, rng: np.random.Generator) -> Answer:
    """A description as JSON. Told less (`levels_lite`), it says what stands there and has nothing to
    say of a day but what holds anywhere."""
    pick = _picker(rng)
    if ask.kind in ("heights", "pois"):
        plain = _of_heights(ask, rng) if ask.kind == "heights" else _of_pois(ask, rng)
        if plain.error:
            return plain
        features = plain.text
        heights = np.asarray(ask.heights_m if ask.heights_m is not None else [], np.float64)
        guess = uses.from_heights(heights) if ask.kind == "heights" else uses.from_pois(ask.pois)
    else:
        shares = {k: float(v) for k, v in ask.shares.items() if np.isfinite(v)}
        if not shares:
            return Answer(error="nothing in the picture could be measured")
        shares = _misjudged(shares, ask.temperature, rng)
        features = _listed(ask.kind == "satellite", shares, pick)
        guess = (uses.from_above if ask.kind == "satellite" else uses.from_street)(shares)
    activity, leaving = guess.activity, uses.departures(guess)
    if ask.form == "levels_lite":
        activity, leaving = 50.0, uses.CURVES.mean(axis=0)
        land = features
    else:
        land = f"{uses.sentence(guess, pick)} {features}"
        activity += rng.normal(0, 3)
        leaving = leaving + rng.normal(0, 0.02, HOURS)
    found = ThreeLevels(
        land=land,
        activity=float(np.clip(round(activity), 0, 100)),
        departures=np.clip(leaving, 0, 1).round(2).tolist(),
    )
    return Answer(found.model_dump_json())


def _misjudged(
    shares: Mapping[str, float], temperature: float, rng: np.random.Generator
) -> dict[str, float]:
    """Now and then the share of one element is taken for half, or twice, of what it is."""
    fails, which, kind = rng.random(3)
    found = dict(shares)
    if fails < _ERROR + _WARM_ERROR * temperature:
        name = list(found)[int(which * len(found))]
        found[name] = min(0.9, found[name] * (2.0 if kind < 0.5 else 0.5))
    return found


def _listed(
    from_above: bool, shares: Mapping[str, float], pick: Callable[[Sequence[str]], str]
) -> str:
    """What fills a picture, and what there is little or much of, without where it lies."""
    nouns = _LAND_WIDE if from_above else _STREET_WIDE
    wide = sorted((n for n in nouns if shares.get(n, 0) >= 0.05), key=lambda n: -shares[n])[:4]
    sentences = _quantities([(pick(nouns[name]), shares[name]) for name in wide], pick)
    if not from_above:
        small = [
            pick([words for limit, words in steps if shares.get(name, 0) >= limit][-1])
            for name, steps in _STREET_SMALL.items()
            if name not in wide
        ]
        sentences.append(f"{_there_is(small)} {_list(small)}.")
    return _short(sentences)


# --- words ---------------------------------------------------------------------------------------


def _picker(rng: np.random.Generator) -> Callable[[Sequence[str]], str]:
    return lambda options: options[int(rng.integers(len(options)))]


def _how_much(share: float, pick: Callable[[Sequence[str]], str]) -> str:
    """A share in words: "about a third", "roughly 14 percent"."""
    about = pick(("about", "roughly", "around"))
    for value, word in _FRACTIONS:
        if abs(share - value) < 0.06 * value:
            return f"{about} {word}"
    step = 5 if share > 0.22 else 2 if share > 0.1 else 1
    return f"{about} {max(1, step * round(100 * share / step))} percent"


def _quantities(
    shares: Sequence[tuple[str, float]], pick: Callable[[Sequence[str]], str]
) -> list[str]:
    """Sentences that give the shares of nouns, three at a time."""
    sentences = []
    for i in range(0, len(shares), 3):
        (noun, share), *others = shares[i : i + 3]
        frame = pick(("the view", "the picture", "the image"))
        if pick(("noun", "share")) == "noun":
            verb = pick(("fill", "cover", "take up")) + ("" if _plural(noun) else "s")
            verb = "takes up" if verb == "take ups" else verb
            said = [f"{noun} {verb} {_how_much(share, pick)} of {frame}"]
            said += [f"{noun} {_how_much(share, pick)}" for noun, share in others]
        else:
            said = [f"{_how_much(share, pick)} of {frame} is {noun}"]
            said += [f"{_how_much(share, pick)} {noun}" for noun, share in others]
        sentences.append(f"{_list(said)}.")
    return sentences


def _plural(noun: str) -> bool:
    return noun.endswith(("s", "people")) and not noun.endswith("grass")


def _there_is(items: Sequence[str]) -> str:
    """The verb agrees with what comes first."""
    return "There are" if _plural(items[0]) else "There is"


def _list(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _article(phrase: str) -> str:
    return f"{'an' if phrase[:1].lower() in 'aeio' else 'a'} {phrase}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _short(sentences: Sequence[str]) -> str:
    """Whole sentences up to `MAX_WORDS` words."""
    kept: list[str] = []
    for sentence in sentences:
        if kept and sum(len(s.split()) for s in kept) + len(sentence.split()) > MAX_WORDS:
            break
        kept.append(_capital(sentence))
    return " ".join(kept)
