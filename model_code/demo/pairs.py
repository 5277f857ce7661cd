"""Pictures with sentences that a person might write of them: what the embedded CLIP learns from.

They stand in for the pairs of the web. Each picture is rendered from levels of its own, drawn
independently, and belongs to no city; the sentences tell what is to be seen in it, unevenly: some
name everything, some two things, in words or in percent. B pictures.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model_code.demo import chip_scene, street_scene
from model_code.demo.aerial import SHOWN
from model_code.demo.chip_scene import Grounds
from model_code.demo.fields import Floats, stream
from model_code.demo.street_scene import Scenes
from model_code.progress import Meter, Say, silent

Pictures = NDArray[np.uint8]
View = Literal["satellite", "street_view"]
Facts = Mapping[str, float]

_BATCH = 32
TEXTS = 16  # of each picture


def street_pairs(count: int, seed: int, progress: Say = silent) -> tuple[Pictures, list[list[str]]]:
    """Street scenes uint8 [B, 96, 128, 3], and what `TEXTS` people say of each."""
    pictures, facts = street_facts(count, seed, progress=progress)
    return pictures, _texts("street_view", facts, seed)


def satellite_pairs(
    count: int, seed: int, progress: Say = silent
) -> tuple[Pictures, list[list[str]]]:
    """Satellite chips uint8 [B, 64, 64, 3], and what `TEXTS` people say of each."""
    pictures, facts = satellite_facts(count, seed, progress=progress)
    return pictures, _texts("satellite", facts, seed)


def _texts(view: View, facts: Sequence[Facts], seed: int) -> list[list[str]]:
    rng = stream(seed, f"pairs/{view}/texts")
    return [
        [say(view, mention(view, fact, rng), int(rng.integers(2**31))) for _ in range(TEXTS)]
        for fact in facts
    ]


# --- what a picture shows ------------------------------------------------------------------------


def street_facts(
    count: int, seed: int, use: str = "pairs", progress: Say = silent
) -> tuple[Pictures, list[Facts]]:
    """Street scenes, and of each the shares (0..1) and numbers of what is to be seen; another `use`
    draws other scenes from the same seed."""
    pictures, facts = [], []
    meter = Meter(progress, "rendering", count)
    for start in range(0, count, _BATCH):
        meter.at(start)
        b = min(_BATCH, count - start)
        rng = stream(seed, f"{use}/street_view/{start}")
        greenery, water, industry, income, commerce = _levels(rng, b, 5)
        hour = rng.uniform(7, 20.5, b).astype(np.float32)
        seen = SeenScenes(Scenes(greenery, water, industry, income, commerce, hour), rng)
        images = seen.render()
        pictures.append(images)
        facts += seen.facts(images)
    return np.concatenate(pictures), facts


def satellite_facts(
    count: int, seed: int, use: str = "pairs", progress: Say = silent
) -> tuple[Pictures, list[Facts]]:
    """Satellite chips, and of each the shares (0..1) of what is to be seen."""
    pictures: list[Pictures] = []
    facts: list[Facts] = []
    meter = Meter(progress, "rendering", count)
    for start in range(0, count, _BATCH):
        meter.at(start)
        b = min(_BATCH, count - start)
        rng = stream(seed, f"{use}/satellite/{start}")
        built, greenery, industry, wet = _levels(rng, b, 4)
        industry = industry**2  # a little of it covers much
        water = np.clip(0.7 * wet - 0.2, 0, None)
        grounds = Grounds(built, greenery, water, industry)
        images, shown = chip_scene.render_shown(grounds, rng)
        pictures.append(images)
        facts += shown_facts(shown.reshape(b, -1))
    return np.concatenate(pictures), facts


def shown_facts(shown: Pictures) -> list[Facts]:
    """The shares of the ground of chips from what their pixels show: codes [B, pixels] of `SHOWN`."""
    shares = {name: (shown == code).mean(axis=1) for code, name in enumerate(SHOWN)}
    return [{name: float(v[i]) for name, v in shares.items()} for i in range(len(shown))]


def _levels(rng: np.random.Generator, b: int, n: int) -> list[Floats]:
    """Independent levels, more often near an end: most places lack something."""
    return [rng.beta(0.7, 0.9, b).astype(np.float32) for _ in range(n)]


_KINDS = ("sky", "buildings", "road", "pavement", "greenery", "water", "shops", "people", "cars")


class SeenScenes(street_scene._Batch):
    """Keeps what each pixel shows while it is drawn, and how many things stand there."""

    def __init__(self, scenes: Scenes, rng: np.random.Generator) -> None:
        super().__init__(scenes, rng)
        self.kind = "sky"
        self.shows = np.zeros(self.grain.size, np.uint8)
        self.shed = np.zeros(self.grain.size, bool)
        self.care = np.zeros(self.grain.size, np.float32)
        self.numbers = {name: np.zeros(self.b) for name in ("people", "cars", "trucks")}

    def put(self, at: Any, colour: Floats, shade: Floats | float = 0.0, glow: Any = 0.0) -> None:
        super().put(at, colour, shade, glow)
        kind = self.kind
        if kind == "buildings" and np.ndim(glow):
            kind = "shops"  # only lettered boards and lit fronts shine pixel by pixel
        if colour is street_scene._LEAVES or colour is street_scene._GRASS:
            kind = "greenery"
        if kind == "water":
            kind = "sky" if len(at) and np.array_equal(colour, self.open_sky[at]) else "water"
        self.shows[at] = _KINDS.index(kind)

    def box(self, there: Any, x: Any, z: Any, half: Any, high: Any, low: Any = 0.0) -> Any:
        found = super().box(there, x, z, half, high, low)
        seen = np.bincount(found[1], minlength=self.b) >= 12
        if self.kind == "people":
            self.numbers["people"] += seen
        elif self.kind == "cars":
            self.numbers["cars"] += seen & (half < 1)
            self.numbers["trucks"] += seen & (half > 1)
        return found

    def ground(self) -> None:
        self.kind = "pavement"
        super().ground()
        at = np.flatnonzero(np.broadcast_to(self.py[:, :, None] > 0, self.shape))
        b, px, py = self.rays(at)
        road = np.abs(px) * street_scene._EYE_M / py < self.road_half[b]
        self.shows[at[road]] = _KINDS.index("road")

    def walls(self) -> None:
        self.kind = "buildings"
        super().walls()

    def built(self, at: Any, shed: Any, care: Any) -> None:
        self.shed[at], self.care[at] = shed, care

    def waterside(self) -> None:
        self.kind = "water"
        super().waterside()

    def trees(self) -> None:
        self.kind = "greenery"
        super().trees()

    def people(self) -> None:
        self.kind = "people"
        super().people()

    def cars(self) -> None:
        self.kind = "cars"
        super().cars()

    def facts(self, pictures: Pictures) -> list[Facts]:
        shows = self.shows.reshape(self.b, -1)
        shares = {kind: (shows == code).mean(axis=1) for code, kind in enumerate(_KINDS)}
        shares |= self.numbers
        walls = shows == _KINDS.index("buildings")
        shed = self.shed.reshape(self.b, -1)
        shares["sheds"] = (walls & shed).mean(axis=1)
        houses = walls & ~shed
        care = (self.care.reshape(self.b, -1) * houses).sum(axis=1)
        # Where no house is to be seen, nobody can say how it is kept.
        shares["upkeep"] = np.where(
            houses.any(axis=1), care / np.maximum(houses.sum(axis=1), 1), 0.5
        )
        shares["dark"] = self.night
        top = pictures[:, :16].mean(axis=(1, 2))
        shares["weather"] = (top[:, 2] - top[:, 0]) / (top.sum(axis=1) + 1)
        return [{name: float(v[i]) for name, v in shares.items()} for i in range(self.b)]


# --- what is said of it --------------------------------------------------------------------------


@dataclass(frozen=True)
class Mention:
    """One thing that a text says: an element at a level (0: there is none), in percent if given;
    `variant` chooses among the ways to put it."""

    element: str
    level: int
    percent: int | None = None
    variant: int = 0


@dataclass(frozen=True)
class Element:
    """How people speak of an element: from which amount on each level counts, and its wordings by
    level; a share of the picture may stand for a level where there are `nouns` to go with it."""

    steps: tuple[float, ...]
    levels: tuple[tuple[str, ...], ...]
    nouns: tuple[str, ...] = ()

    def level(self, amount: float) -> int:
        return bisect_right(self.steps, amount)


STREET = {
    "greenery": Element(
        (0.01, 0.05, 0.11, 0.2),
        (
            ("no trees", "not a single tree", "no greenery whatsoever", "no plants"),
            ("hardly any greenery", "a bit of green", "one or two small trees", "little foliage"),
            ("some trees", "a few leafy trees", "some foliage", "a fair bit of greenery"),
            ("lots of trees", "plenty of greenery", "many leafy trees", "rich foliage"),
            ("trees nearly everywhere", "a lush canopy of trees", "greenery all around",
             "mostly trees"),
        ),
        ("trees", "greenery", "foliage", "leafy trees"),
    ),
    "buildings": Element(
        (0.02, 0.1, 0.18, 0.28),
        (
            ("no buildings", "no houses"),
            ("hardly any buildings", "a glimpse of a house", "a small bit of facade"),
            ("some buildings", "a few houses", "some facades"),
            ("many buildings", "rows of houses", "a lot of facade"),
            ("mostly buildings", "houses towering all over", "facades that fill the view"),
        ),
        ("buildings", "facades", "houses", "house fronts"),
    ),
    "sky": Element(
        (0.02, 0.24, 0.3, 0.36),
        (
            ("no sky",),
            ("only a sliver of sky", "hardly any sky", "little sky"),
            ("some sky", "a patch of sky", "a strip of sky"),
            ("a lot of sky", "much sky", "a broad sky"),
            ("a huge open sky", "mostly sky", "a vast sky overhead"),
        ),
        ("sky", "open sky"),
    ),
    "road": Element(
        (0.05, 0.27, 0.31, 0.34),
        (
            ("no road",),
            ("little road", "a bit of road"),
            ("a narrow road", "a modest strip of asphalt"),
            ("a road", "a good deal of asphalt"),
            ("a wide road", "a broad stretch of asphalt"),
        ),
        ("road", "asphalt", "tarmac"),
    ),
    "water": Element(
        (0.005, 0.025, 0.045, 0.07),
        (
            ("no water", "no river"),
            ("a glint of water", "a bit of river", "hardly any water"),
            ("some water", "a stretch of river", "water behind a railing"),
            ("much water", "a wide river", "a lot of water beside the road"),
            ("a great expanse of water", "water nearly everywhere", "a huge river alongside"),
        ),
        ("water", "river"),
    ),
    "pavement": Element(
        (0.02, 0.035, 0.06, 0.085),
        (
            ("no sidewalk", "no pavement"),
            ("a sliver of sidewalk", "hardly any pavement"),
            ("a narrow sidewalk", "a strip of pavement"),
            ("a sidewalk", "a good deal of pavement"),
            ("a broad sidewalk", "wide pavements"),
        ),
        ("sidewalk", "pavement", "paving"),
    ),
    "cars": Element(
        (0.5, 1.5, 3.5, 90),
        (
            ("no cars", "no vehicles", "not a car"),
            ("one car", "a single car", "a lone vehicle"),
            ("a few cars", "two or three cars", "some vehicles"),
            ("many cars", "lots of traffic", "plenty of vehicles"),
            ("cars nearly everywhere",),
        ),
    ),
    "trucks": Element(
        (0.5, 1.5, 3.5, 90),
        (
            ("no trucks",),
            ("a truck", "a lorry", "a delivery truck"),
            ("a few trucks", "some lorries"),
            ("many trucks", "lots of lorries"),
            ("trucks nearly everywhere",),
        ),
    ),
    "people": Element(
        (0.5, 1.5, 3.5, 5.5),
        (
            ("no people", "nobody", "no pedestrians"),
            ("one person", "a lone pedestrian", "somebody on foot"),
            ("a few people", "a couple of pedestrians", "some passers-by"),
            ("many people", "a lot of pedestrians", "plenty of passers-by"),
            ("crowds of people", "a throng of pedestrians"),
        ),
    ),
    "shops": Element(
        (0.002, 0.008, 0.016, 0.03),
        (
            ("no shops", "no stores"),
            ("a shop", "a small store", "one storefront"),
            ("a few shops", "some storefronts", "some shop signs"),
            ("many shops", "a lot of storefronts", "plenty of bright shop signs"),
            ("shops nearly everywhere", "storefront after storefront"),
        ),
    ),
    "sheds": Element(
        (0.03, 0.1, 0.2, 0.9),
        (
            ("no warehouses", "no industry"),
            ("a warehouse", "a metal shed"),
            ("a few warehouses", "some metal sheds"),
            ("many warehouses", "rows of industrial sheds"),
            ("warehouses nearly everywhere",),
        ),
    ),
    "upkeep": Element(
        (0.3, 0.7),
        (("run-down", "shabby", "neglected"), (), ("well-kept", "tidy", "smart")),
    ),
    "dark": Element(
        (0.12, 0.45),
        (("daytime", "sunlit"), ("dusky", "evening"), ("dark", "nightly")),
    ),
    "weather": Element(
        (-1, 0.01, 0.08),
        ((), ("an overcast sky", "grey clouds"), (), ("a clear blue sky", "fine weather")),
    ),
}  # fmt: skip

SATELLITE = {
    "buildings": Element(
        (0.008, 0.04, 0.1, 0.18),
        (
            ("no buildings", "no houses", "nothing built"),
            ("hardly any buildings", "a few scattered roofs", "a handful of houses"),
            ("some buildings", "some rows of roofs", "a moderate number of houses"),
            ("many buildings", "closely set roofs", "lots of houses"),
            ("buildings packed tightly", "houses nearly everywhere", "a dense carpet of roofs"),
        ),
        ("roofs", "buildings", "houses", "rooftops"),
    ),
    "greenery": Element(
        (0.02, 0.06, 0.15, 0.32),
        (
            ("no trees", "no vegetation", "no greenery"),
            ("hardly any greenery", "a few trees", "little vegetation"),
            ("some trees", "patches of woodland", "some greenery"),
            ("many trees", "plenty of vegetation", "large wooded areas"),
            ("trees nearly everywhere", "thick forest all over", "mostly woodland"),
        ),
        ("trees", "vegetation", "forest", "woodland", "tree crowns"),
    ),
    "water": Element(
        (0.01, 0.08, 0.2, 0.34),
        (
            ("no water", "no river"),
            ("a thin stream", "a narrow river", "a little water"),
            ("a river", "some water", "a waterway"),
            ("a wide river", "much water", "a broad waterway"),
            ("mostly water", "a huge river", "water nearly everywhere"),
        ),
        ("water", "river"),
    ),
    "industry": Element(
        (0.02, 0.1, 0.3, 0.55),
        (
            ("no industry", "no factories"),
            ("a bit of industry", "a few factory yards"),
            ("some industry", "some factory yards", "some grey warehouses"),
            ("much industry", "many warehouses", "large factory yards"),
            ("industry nearly everywhere", "factory yards all over", "mostly warehouses"),
        ),
        ("industry", "warehouses", "factory yards", "metal sheds", "industrial land"),
    ),
    "soil": Element(
        (0.01, 0.06, 0.18, 0.4),
        (
            ("no bare ground", "no open soil"),
            ("a bit of bare ground", "little dry soil"),
            ("some bare ground", "patches of dry soil", "some sandy fields"),
            ("much bare ground", "a lot of dry soil", "large sandy fields"),
            ("bare ground nearly everywhere", "dry soil all over", "mostly sand"),
        ),
        ("bare ground", "dry soil", "sandy land", "open soil"),
    ),
    "grass": Element(
        (0.01, 0.05, 0.12, 0.2),
        (
            ("no grass", "no meadows", "no lawns"),
            ("hardly any grass", "a small meadow", "a few lawns"),
            ("some grass", "some meadows", "patches of grassland"),
            ("much grass", "many meadows", "wide lawns"),
            ("grass nearly everywhere", "meadows all over", "mostly grassland"),
        ),
        ("grass", "meadows", "grassland", "lawns"),
    ),
    "paved": Element(
        (0.01, 0.06, 0.15, 0.3),
        (
            ("no paved ground", "no concrete"),
            ("hardly any concrete", "a bit of paved ground"),
            ("some paved ground", "some grey concrete", "patches of paving"),
            ("much paved ground", "a lot of concrete", "large paved areas"),
            ("paved ground nearly everywhere", "concrete all over", "mostly grey paving"),
        ),
        ("paved ground", "concrete", "grey paving"),
    ),
    "roads": Element(
        (0.03, 0.075, 0.1, 0.125),
        (
            ("no roads", "no streets"),
            ("hardly any roads", "one or two roads", "few streets"),
            ("some roads", "some streets", "a loose grid of streets"),
            ("many roads", "many streets", "a street grid"),
            ("roads nearly everywhere", "a dense network of streets"),
        ),
        ("roads", "streets", "asphalt"),
    ),
}

ELEMENTS: dict[View, dict[str, Element]] = {"satellite": SATELLITE, "street_view": STREET}
# Said as an adjective of the street.
ADJECTIVES = ("upkeep", "dark")

_OPENERS = {
    "street_view": (
        "A {adj}street with {first}", "Looking down a {adj}street with {first}",
        "Photo of a {adj}street showing {first}", "This {adj}street has {first}",
        "View along a {adj}street: {first}", "Here we see a {adj}street with {first}",
        "{first} on a {adj}street", "In this image, a {adj}road with {first}",
        "A {adj}scene from the roadside, {first}",
    ),
    "satellite": (
        "An aerial photo of {first}", "Seen from above: {first}", "This area has {first}",
        "A satellite picture showing {first}", "From the air one sees {first}",
        "The land here has {first}", "{first}, seen from above", "An image of a city with {first}",
        "A district with {first}", "View of a neighbourhood from above, {first}",
    ),
}  # fmt: skip
# A thing and its share of the picture.
_SHARES = ("{0} over {1}", "{0} on {1}", "{0} covering {1}", "{0} filling {1}",
           "{0} taking up {1}", "{1} under {0}", "{2} {0}", "{2} of {0}")  # fmt: skip
_ABOUT = ("about", "roughly", "around", "nearly")
_PICTURE = ("picture", "image", "view", "scene", "frame", "photo")
_PERCENT = ("{} percent", "{}%", "{} per cent", "{} %")
_FRACTIONS = ((10, "a tenth"), (20, "a fifth"), (25, "a quarter"), (33, "a third"), (50, "half"),
              (67, "two thirds"), (75, "three quarters"))  # fmt: skip
_IN_PERCENT = 0.2
_MORE = (
    "There is also {}", "You can make out {} too", "One notices {} as well", "Besides that, {}",
    "Also visible: {}", "I can see {} there", "It shows {} as well",
)  # fmt: skip
_NONE = ("There are {}", "With {}", "And {}", "One sees {}")


def mention(
    view: View, facts: Facts, rng: np.random.Generator, thorough: tuple[float, float] = (0.45, 1.0)
) -> list[Mention]:
    """What somebody says of a picture: most of what is there, and now and then what is not. How
    `thorough` people are, as the chance that they name a thing, is drawn from that range."""
    said = []
    chatty = rng.uniform(*thorough)
    for name, element in ELEMENTS[view].items():
        amount, level = facts[name], element.level(facts[name])
        adjective = name in ADJECTIVES
        chance = 0.5 if adjective else chatty if level else 0.12
        if rng.random() < chance and element.levels[level]:
            percent = None
            if element.nouns and level and rng.random() < _IN_PERCENT:
                percent = 5 * round(20 * amount)
                if amount < 0.1:
                    percent = max(1, round(100 * amount))
            said.append(Mention(name, level, percent, int(rng.integers(2**31))))
    order = rng.permutation(len(said))
    return [said[i] for i in order[:6]]


def say(view: View, mentions: Sequence[Mention], variant: int) -> str:
    """The mentions as English sentences; the same mentions and variant give the same text."""
    adjectives = [m for m in mentions if m.element in ADJECTIVES]
    there = [_phrase(view, m) for m in mentions if m.element not in ADJECTIVES and m.level]
    absent = [_phrase(view, m) for m in mentions if m.element not in ADJECTIVES and not m.level]
    adjective = "".join(f"{_phrase(view, m)} " for m in adjectives)
    choice = variant
    choice, opener = divmod(choice, len(_OPENERS[view]))
    choice, more = divmod(choice, len(_MORE))
    choice, none = divmod(choice, len(_NONE))
    cut = 2 + choice % 3
    first = _list(there[:cut]) or "little to see"
    sentences = [_OPENERS[view][opener].format(adj=adjective, first=first)]
    if there[cut:]:
        sentences.append(_MORE[more].format(_list(there[cut:])))
    if absent:
        sentences.append(_NONE[none].format(_list(absent, "or" if len(absent) < 3 else "and")))
    return (
        " ".join(f"{s[0].upper()}{s[1:]}." for s in sentences)
        .replace("a evening", "an evening")
        .replace("A evening", "An evening")
    )


def _phrase(view: View, said: Mention) -> str:
    element = ELEMENTS[view][said.element]
    if said.percent is not None:
        choice, noun = divmod(said.variant, len(element.nouns))
        choice, form = divmod(choice, len(_SHARES))
        amount, of_all = _share(said.percent, choice)
        return _SHARES[form].format(element.nouns[noun], of_all, amount)
    wordings = element.levels[said.level]
    return wordings[said.variant % len(wordings)]


def _share(percent: int, choice: int) -> tuple[str, str]:
    """A share in figures, and as one of the picture: in words where a simple fraction is near."""
    choice, about = divmod(choice, len(_ABOUT))
    choice, picture = divmod(choice, len(_PICTURE))
    words, choice = choice % 2, choice // 2
    near = [name for share, name in _FRACTIONS if abs(share - percent) <= max(1, percent / 15)]
    figures = f"{_ABOUT[about]} {_PERCENT[choice % len(_PERCENT)].format(percent)}"
    amount = f"{_ABOUT[about]} {near[0]}" if near and words else figures
    return figures, f"{amount} of the {_PICTURE[picture]}"


def _list(items: Sequence[str], conjunction: str = "and") -> str:
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {conjunction} {items[-1]}"
