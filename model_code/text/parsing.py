"""Reads a caption in free English: what it says is there, and how much of it.

No grammar is assumed. Every mention of an element and every word of quantity is found; a quantity
belongs to the element that it stands next to within its clause. Unknown words are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from model_code.backends import View


@dataclass(frozen=True)
class Amount:
    """How much of an element a text names: `level` 0 (none) to 1 (all over), and the share of the
    picture where the text gives a fraction or a percentage. `stated` is False for a bare mention."""

    level: float
    share: float | None = None
    stated: bool = True


Said = Mapping[str, Amount]

# Synonyms by element, as regular expressions of whole words.
_ELEMENTS: Mapping[View, Mapping[str, str]] = {
    "street_view": {
        "sky": r"sky|skies|heavens",
        "building": r"buildings?|houses?|fa[cç]ades?|walls?|housing|homes?|apartments?|blocks? of "
        r"flats|flats|tenements?|towers?|masonry|terraces?|architecture|structures?|dwellings?|"
        r"brickwork|frontages?|edifices?|built[- ]up (?:area|edges?|sides?)",
        "road": r"roads?|roadways?|asphalt|tarmac|carriageways?|lanes?|road surfaces?|blacktop|"
        r"street surface|driveways?",
        "sidewalk": r"sidewalks?|pavements?|footpaths?|walkways?|footways?|kerbs?|curbs?|paving",
        "tree": r"trees?|foliage|greenery|vegetation|canopy(?! of)|canopies|leaves|plants?|planting|"
        r"hedges?|bush(?:es)?|shrubs?|treetops?|branches|woods?|woodland|verdure|"
        r"(?:(?<=of )|(?<=much )|(?<=little )|(?<=some )|(?<=any )|(?<=no ))green"
        r"(?! ?(?:verge|grass|lawn|strip|edge))",
        "grass": r"grass(?:y)?(?: (?:strips?|verges?|edges?|patch(?:es)?))?|lawns?|verges?|turf|"
        r"green strips?|green verges?",
        "car": r"cars?|vehicles?|traffic|automobiles?|sedans?|motorists?|taxis?|cabs?",
        "truck": r"trucks?|lorr(?:y|ies)|vans?|semis?",
        "person": r"people|persons?|pedestrians?|passers?[- ]?by|walkers?|"
        r"somebody|someone|figures?|m[ae]n|wom[ae]n|bystanders?|strollers?|"
        r"shoppers?|residents|nobody|no[- ]one|not a soul|foot traffic",
        "shop": r"shops?|stores?|store ?fronts?|shop ?fronts?|shop windows?|(?:shop )?signs?|"
        r"signboards?|signage|billboards?|boutiques?|caf[eé]s?|retail(?:ers)?|commerce|businesses|"
        r"lettering|awnings?|commercial (?:fronts?|premises|units?)",
        "warehouse": r"warehouses?|(?:metal |industrial |corrugated )?sheds?|industry|factor(?:y|ies)|"
        r"hangars?|depots?|workshops?|industrial (?:buildings?|halls?|units?|premises)|"
        r"metal (?:halls?|walls?|buildings?)|roller (?:doors?|gates?)|corrugated metal",
        "water": r"water(?:side|front|way)?|rivers?|riverside|riverbanks?|canals?|lakes?|streams?|"
        r"harbou?r|sea|quay|embankment|waves",
    },
    "satellite": {
        "forest": r"trees?|forests?|woods?|woodlands?|(?:wooded|forested|leafy) (?:areas?|land|patches|ground)|"
        r"canopy(?! of)|canopies|foliage|greenery|vegetation|"
        r"tree cover|tree crowns?|crowns|groves?|thickets?|parks?|plants?|verdure|green cover",
        "grass": r"grass(?:es|land|lands|y areas?|y ground)?|lawns?|meadows?|fields?|pastures?|turf|"
        r"open green(?:ery| space| land)?|farmland|green fields?|crops?",
        "water": r"water(?:way|side|front|s)?|rivers?|canals?|lakes?|streams?|harbou?r|sea|ponds?|"
        r"reservoirs?|river ?banks?|water surface|bay",
        "building": r"buildings?|houses?|roof ?tops?|roofs?|housing|homes?|dwellings?|settlements?|"
        r"built[- ]up (?:area|areas|land|blocks?|fabric)|structures?|blocks of flats|residential "
        r"(?:areas?|blocks?|quarters?|buildings?)|residences|apartments?|neighbou?rhoods?",
        "industrial": r"(?:industrial|metal|commercial) (?:sheds?|roofs?|buildings?|halls?|areas?|"
        r"sites?|estates?|zones?|land|units?|plants?|premises|facilit(?:y|ies)|grounds?|use)|industry|"
        r"industries|warehouses?|sheds?|factor(?:y|ies)|containers?|depots?|stacked goods|goods|"
        r"storage yards?|plants? and yards?|(?:working |goods )?yards?|logistics|hangars?",
        "road": r"roads?|streets?|lanes?|avenues?|highways?|motorways?|street (?:grid|network)|"
        r"road (?:grid|network)|thoroughfares?|bridges?",
        "barren": r"(?:bare|barren|open|brown|dry|exposed|undeveloped|dusty|sandy|empty) (?:soil|"
        r"ground|earth|land|terrain|plots?|lots?)|soil|sand|dirt|earth|wasteland|fallow|barren|"
        r"desert|brownfields?|bare patches|(?:sandy|dry|bare|brown|dusty) (?:fields?|areas?|patches)|"
        r"open soil",
        "background": r"(?:paved|sealed|concrete|asphalted|grey|gray|hard|artificial) (?:ground|"
        r"surfaces?|areas?|land|lots?|yards?)|paving|pavements?|concrete|parking(?: lots?| areas?)?|"
        r"asphalt|hardstanding|squares?|plazas?|tarmac",
    },
}  # fmt: skip

# Words that hold for the whole scene: hour (1: night) and upkeep (1: well kept).
_SCENE: Mapping[str, tuple[tuple[float, str], ...]] = {
    "dark": (
        (1.0, r"nights?(?:time|fall|ly)?|dark(?= (?:\w+[- ]?\w* )?(?:street|scene|road|view|sky|evening|picture|photo))|"
         r"after dark|in the dark(?:ness)?|darkness|lamplit|(?:it is|is|it's|and|already|very|nearly) "
         r"dark|dark,|late evening|moonlit|dark hours?"),
        (0.55, r"dusk(?:y)?|evening|twilight|sunset|nightfall|fading light|low light|dim(?:ly lit)?|"
         r"half[- ]light|gloomy|sundown|gloaming"),
        (0.0, r"daytime|day ?light|sunlit|sunny|noon|midday|in full light|bright day|by day|morning|"
         r"broad day|in the day|sunshine|bright(?: light| morning| afternoon)?|afternoon"),
    ),
    "upkeep": (
        (0.05, r"run[- ]?down|shabby|neglected|dilapidated|derelict|grim[ey]|stained|peeling|crumbling|"
         r"dirty|decaying|poorly kept|badly kept|poor state|boarded(?:[- ]up)?|graffiti|tags|shabbier|"
         r"in disrepair|unkempt|worn(?:[- ]out| and stained)?|soiled|tired[- ]looking|deteriorat\w+|"
         r"in need of repair|squalid"),
        (0.35, r"weathered|faded|ageing|aging|somewhat worn|slightly worn|tired|plain and worn"),
        (0.5, r"ordinary|average upkeep|fairly kept|decent|modest|reasonably kept"),
        (0.95, r"well[- ]kept|tidy|smart|neat(?:ly kept)?|clean|immaculate|freshly painted|elegant|"
         r"well[- ](?:maintained|tended|cared[- ]for)|spotless|handsome|affluent|pristine|fresh(?:ly)?|"
         r"in good (?:repair|condition|order)|prosperous|polished"),
    ),
}  # fmt: skip

_FRACTIONS = {
    "half": 1 / 2, "halves": 1 / 2, "third": 1 / 3, "quarter": 1 / 4, "fourth": 1 / 4, "fifth": 1 / 5,
    "sixth": 1 / 6, "seventh": 1 / 7, "eighth": 1 / 8, "tenth": 1 / 10, "twelfth": 1 / 12,
    "twentieth": 1 / 20,
}  # fmt: skip
_NUMBERS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "twelve": 12, "fifteen": 15, "twenty": 20, "twenty-five": 25,
    "thirty": 30, "thirty-five": 35, "forty": 40, "forty-five": 45, "fifty": 50, "sixty": 60,
    "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_NUMBER = "|".join(sorted(_NUMBERS, key=len, reverse=True))
_FRACTION = "|".join(_FRACTIONS)
_SHARE = re.compile(
    rf"(?P<number>\d+(?:\.\d+)?|\b(?:{_NUMBER}))\s*(?:%|per ?cent\b|percent\b)"
    rf"|\b(?:(?P<top>{_NUMBER}|\d+)[ -])?(?P<part>{_FRACTION})s?\b(?! (?:light|dark))"
    rf"|\b(?P<out>{_NUMBER}|\d+) (?:in|out of) (?P<of>{_NUMBER}|\d+)\b"
)
_AROUND = (
    (0.8, r"(?:well|far|much) (?:under|below|less than)"),
    (0.9, r"less than|under|below|not quite|fewer than|at most|up to|just short of"),
    (1.2, r"(?:well|far|much) (?:over|above|more than)"),
    (1.1, r"more than|above|upwards of|at least|or more|a good(?= (?:half|third|quarter|fifth))"),
    (0.97, r"nearly|almost"),
)  # fmt: skip

# Levels of words that stand before what they count, or after it.
_BEFORE: Sequence[tuple[float, str]] = (
    (0.0, r"no|not (?:a|any|one)(?: single)?|without(?: any)?|zero|neither|nor|none of the|lack(?:s|ing)"
     r"(?: any| of)?|devoid of|free of|absence of|never a|absent|missing|nothing of|no sign of(?: any)?|"
     r"no trace of|bare of|empty of|not even a"),
    (0.08, r"hardly any|barely any|scarcely any|almost no|next to no|practically no|virtually no|hardly a|"
     r"(?:a )?(?:mere |faint |tiny |small )?(?:trace|hint|glint|touch)s? of|very few|very little|"
     r"only a (?:trace|hint)|barely a|a whisper of"),
    (0.15, r"(?:a |only a |just a )?(?:tiny |small |thin |narrow )?(?:glimpse|sliver|bit|scrap|smudge|"
     r"corner|speck)s? of(?: an?| the)?|little|not much|not many|the odd|an occasional|occasional|minimal|"
     r"tiny|hardly|barely|few(?! hundred)(?<!a few)|rare|sparse|one or two(?: small)?|isolated|limited|"
     r"scant|meagre|meager|only a little|a small amount of|minor"),
    (0.3, r"a few|some|several|a couple of|a handful of|scattered|a little|two or three|two|a (?:small |thin "
     r")?(?:patch|strip|stretch|sprinkling|row|line|band|ribbon|number|pair) of|small|narrow|modest|thin|"
     r"patches of|strips of|a modest (?:strip|amount) of|thinly|here and there|single|slim|light|"
     r"a small number of|three|sporadic|loose|low"),
    (0.5, r"moderate|medium|a (?:fair|reasonable|moderate|certain) (?:bit|amount|number|share) of|"
     r"a mix of|average|quite some|ordinary|mixed|four|a scattering of"),
    (0.65, r"a good (?:deal|many|bit) of|a good deal of|quite a (?:few|lot of|bit of)|considerable|"
     r"substantial|notable|a good amount of|regular|a number of|numerous|steady|generous|five|six"),
    (0.78, r"many|lots of|plenty of|a (?:great |whole )?(?:lot|deal|wealth) of|much|wide|broad|large|big|"
     r"ample|abundant|tall|high|rows? (?:up)?on rows? of|rows of|heavy|rich|tightly packed|close[- ]set|"
     r"extensive|thick|close(?:ly)?[- ](?:set|packed|built)|masses of|a large (?:amount|number|share|body|part) of|a wide (?:strip|stretch) of|"
     r"loads of|a wide|big stretches of|leafy|busy|crowded|wide stretches of|closely spaced|packed|"
     r"(?:a )?broad (?:stretch|expanse|band|strip)(?:es)? of|spacious|open|strong|profuse|considerably more|"
     r"clusters? of|densely built"),
    (0.95, r"mostly|mainly|dominant|a sea of|an? (?:huge|great|vast|large|immense) (?:expanse|canopy|mass|"
     r"amount|stretch|body|part) of|dense|lush|huge|vast|massive|endless|crowds of|throngs of|nothing but|"
     r"wall[- ]to[- ]wall|a lush canopy of|overwhelming(?:ly)?|predominantly|largely|almost only|"
     r"almost entirely|almost all|immense|expansive|sprawling|chiefly|entirely|a crowd of|a throng of|"
     r"an abundance of|full of|filled with|dominated by|covered (?:by|with|in)|crammed with|teeming with|"
     r"packed with|overgrown with|lined with|made up of|consists? of"),
)  # fmt: skip
_AFTER: Sequence[tuple[float, str]] = (
    (0.0, r"(?:is|are|seems?) (?:\w+ )?(?:absent|missing|lacking|nowhere|not (?:visible|present|there|seen|"
     r"to be seen))|nowhere(?: to be seen| in sight)?|is not (?:visible|there)|absent|none(?! of)|"
     r"(?:can|could) not be seen|cannot be seen|are not visible|isn't (?:visible|there)|aren't "
     r"(?:visible|there)|to be missed"),
    (0.12, r"(?:is|are) (?:\w+ )?(?:scarce|rare|sparse|few|hardly visible|barely visible|minimal)|barely shows?"
     r"|in small traces|peeks? (?:through|in)|hardly shows?|in the distance only|scarcely there"),
    (0.3, r"here and there|dotted about|(?:is|are) (?:scattered|thin|modest|small|narrow|limited)|in places|"
     r"scattered|in the background|thinly spread|now and then|in small patches|stands? about"),
    (0.78, r"lines? (?:both sides|the street|the road|it)|on both sides|(?:is|are) (?:many|plentiful|"
     r"abundant|wide|broad|large|common)|in (?:large|great) (?:numbers|part)|aplenty|stretch(?:es)? (?:far|"
     r"wide|out)|galore|abound|to (?:the )?left and right|packed (?:closely|tightly|densely)"),
    (0.95, r"(?:nearly |almost |just about )?everywhere|all (?:around|over)|dominat\w+|fills? (?:the|most|"
     r"nearly|almost)|prevails?|takes? over|(?:is|are) (?:dense|lush|overwhelming|dominant|huge|vast)|"
     r"covers? (?:most|nearly|almost|everything|all|the whole)|that fill|towering all over|"
     r"rules?(?: the)?|as far as|make[s]? up most|take[s]? up most|occup(?:y|ies) most|"
     r"most of|wall[- ]to[- ]wall|throughout|crowds? the"),
)  # fmt: skip
# "no trees, cars or people": what is denied goes on over a list, until the sentence turns.
_TURNS = re.compile(r"\b(?:but|while|whereas|though|although|however|yet|instead|with|under|between|"
                    r"beneath|beside|along|except|only|there (?:is|are)|has|have|shows?)\b|[;:]")  # fmt: skip
_NEGATED = {"person": r"nobody|no[- ]one|not a soul", "none": r"^$"}
_FREE = re.compile(r"\b(\w+?)(?:-free|less)\b")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_REACH = 42  # characters between a quantity and its element
_BARE = 0.5


@dataclass(frozen=True)
class _Span:
    start: int
    end: int
    value: float
    name: str = ""


def parse(text: str, view: View) -> Said:
    """What a text says is there, by element; for a street also `dark` and `upkeep` (levels). What it
    does not mention is absent from the answer."""
    said: dict[str, Amount] = {}
    for sentence in _SENTENCE.split(_plain(text)):
        for name, amount in _sentence(sentence, view):
            known = said.get(name)
            if known is None or _weight(amount) > _weight(known):
                said[name] = amount
    if view == "street_view":
        for name, words in _scene_patterns().items():
            found = [(m.start(), level) for level, p in words for m in p.finditer(text.lower())]
            if found:
                said[name] = Amount(min(found)[1])
    return said


def _weight(amount: Amount) -> int:
    return 2 if amount.share is not None else int(amount.stated)


def _sentence(text: str, view: View) -> Iterator[tuple[str, Amount]]:
    elements = _elements(text, view)
    shares = _shares_of(text, elements)
    before = _disjoint(_spans(text, _patterns("before")))
    after = _disjoint(_spans(text, _patterns("after")))
    denied = False
    for i, at in enumerate(elements):
        low = elements[i - 1].end if i else 0
        high = elements[i + 1].start if i + 1 < len(elements) else len(text)
        if i and _TURNS.search(text, low, at.start):
            denied = False
        share = shares.get(i)
        word = _before(text, at, low, before)
        tail = _after(text, at, high, after)
        if at.value == 0 or (word is not None and word.value == 0 and share is None):
            denied = denied or at.value != 0
            yield at.name, Amount(0.0)
        elif share is not None:
            denied = False
            yield at.name, Amount(min(1.0, share), share)
        elif tail is not None and (word is None or tail.value in (0.0, 0.95)):
            denied = False
            yield at.name, Amount(tail.value)
        elif word is not None:
            denied = False
            yield at.name, Amount(word.value)
        elif denied and not re.search(r"\b(?:a|an|the|its)\b", text[low : at.start]):
            yield at.name, Amount(0.0)
        else:
            denied = False
            one = re.search(r"\b(?:a|an|one|lone)(?: \w+)?\s*$", text[low : at.start])
            mention = text[at.start : at.end]
            single = one and not mention.endswith("s") and at.name in _COUNTED
            single = single or mention in ("somebody", "someone")
            yield at.name, Amount(0.2 if single else _BARE, stated=bool(single))


_COUNTED = ("car", "truck", "person", "shop", "warehouse")


def _elements(text: str, view: View) -> list[_Span]:
    """Mentions in order; a longer wording wins over one inside it. Value 0: denied by the word."""
    found = []
    for name, pattern in _element_patterns(view).items():
        for m in pattern.finditer(text):
            denied = re.fullmatch(_NEGATED.get(name, r"^$"), m.group()) is not None
            found.append(_Span(m.start(), m.end(), 0.0 if denied else 1.0, name))
    for m in _FREE.finditer(text):
        found += [
            _Span(m.start(), m.end(), 0.0, name)
            for name, pattern in _element_patterns(view).items()
            if pattern.fullmatch(m.group(1))
        ]
    return sorted(_disjoint(found), key=lambda span: span.start)


def _share(text: str, m: re.Match[str]) -> _Span | None:
    if m["number"]:
        value = (_NUMBERS[m["number"]] if m["number"] in _NUMBERS else float(m["number"])) / 100
    elif m["part"]:
        if m["part"] == "third" and not m["top"]:
            return None  # an ordinal
        value = _FRACTIONS[m["part"]] * (_count(m["top"]) if m["top"] else 1)
    else:
        value = _count(m["out"]) / max(_count(m["of"]), 1)
    lead = text[max(0, m.start() - 22) : m.start()]
    for factor, pattern in _AROUND:
        if re.search(rf"\b(?:{pattern})\s*(?:about |around |roughly )?$", lead):
            value *= factor
            break
    return _Span(m.start(), m.end(), value) if 0 <= value <= 1.2 else None


def _count(word: str) -> float:
    return float(word) if word.isdigit() else float(_NUMBERS[word])


def _shares_of(text: str, elements: Sequence[_Span]) -> dict[int, float]:
    """Fractions and percentages by the number of the mention that they belong to: the one before
    ("sky covers a third"), or the one after ("a third is sky", "20 % grass"); each to one alone."""
    spans = [span for m in _SHARE.finditer(text) if (span := _share(text, m)) is not None]
    pairs = []
    for j, span in enumerate(spans):
        after = next((i for i, e in enumerate(elements) if e.start >= span.end), None)
        prior = (len(elements) if after is None else after) - 1
        if after is not None:
            between = text[span.end : elements[after].start]
            stopped = re.search(r"[,;:]", between) or _STOPS.search(between)
            pairs.append((len(between) + (30 if stopped else 0), j, after))
        if prior >= 0:
            between = text[elements[prior].end : span.start]
            plain = _HEDGES.sub("", between).strip(" (:-=") == ""
            joined = plain or (_COVERS.search(between) and not _STOPS.search(between))
            pairs.append((len(between) // 2 if joined else len(between) + 25, j, prior))
    found: dict[int, float] = {}
    used: set[int] = set()
    for gap, j, i in sorted(pairs):
        if gap <= _REACH and i not in found and j not in used:
            found[i] = spans[j].value
            used.add(j)
    return found


_HEDGES = re.compile(
    r"\b(?:about|around|roughly|some|nearly|almost|approximately|circa|just|over|under|another|an?|"
    r"the|only|maybe|perhaps|more than|less than)\b"
)
_STOPS = re.compile(r"\b(?:and|while|with|but|plus)\b")
_COVERS = re.compile(
    r"\b(?:cover\w*|tak\w+|fill\w*|occup\w+|mak\w+|account\w*|is|are|on|over|at|amount\w*|"
    r"claim\w*|hold\w*|compris\w+|reach\w*|stretch\w*|spread\w*|shar\w+|form\w*|constitut\w+|for)\b"
)


def _before(text: str, at: _Span, low: int, words: Sequence[_Span]) -> _Span | None:
    """The word of quantity that stands before a mention, in its own clause."""
    found = [w for w in words if low <= w.start and w.end <= at.start]
    if not found:
        return None
    # Of several words a denial counts, else the first: "a few tall houses" are few.
    near = [w for w in found if at.start - w.end <= _REACH and not _cut(text, w, at)]
    denials = [w for w in near if w.value == 0]
    return denials[-1] if denials else near[0] if near else None


def _cut(text: str, word: _Span, at: _Span) -> bool:
    """Whether a clause ends between a word and the mention after it."""
    between = text[word.end : at.start]
    return bool(re.search(r"[,:;]|\b(?:and|with|but|while)\b", between)) and len(between) > 3


def _after(text: str, at: _Span, high: int, words: Sequence[_Span]) -> _Span | None:
    """The first word of quantity after a mention that speaks of it."""
    for w in words:
        if at.end <= w.start and w.end <= max(high, at.end) and w.start - at.end <= 24:
            between = text[at.end : w.start]
            if not re.search(r"[,;:]|\band\b|\bwith\b", between):
                return w
    return None


def _spans(text: str, patterns: Sequence[tuple[float, re.Pattern[str]]]) -> list[_Span]:
    return [_Span(m.start(), m.end(), level) for level, p in patterns for m in p.finditer(text)]


def _disjoint(spans: Sequence[_Span]) -> list[_Span]:
    """Longest first, without overlaps, in order."""
    kept: list[_Span] = []
    for span in sorted(spans, key=lambda s: (s.start - s.end, s.start)):
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda span: span.start)


def _plain(text: str) -> str:
    text = text.lower().replace("’", "'").replace("–", "-").replace("—", ", ")
    text = re.sub(r"\b(\w+) after \1\b", r"\1 everywhere", text)
    text = re.sub(r"\b(crowd|throng)s?\b(?! of)", r"\1s of people", text)
    text = re.sub(r"\bnothing (?:is |was )?built\b", "no buildings", text)
    return re.sub(r"[ \t]+", " ", text)


@cache
def _element_patterns(view: View) -> Mapping[str, re.Pattern[str]]:
    return {name: re.compile(rf"\b(?:{p})(?!\w)") for name, p in _ELEMENTS[view].items()}


@cache
def _scene_patterns() -> Mapping[str, Sequence[tuple[float, re.Pattern[str]]]]:
    return {
        name: [(level, re.compile(rf"\b(?:{p})(?!\w)")) for level, p in words]
        for name, words in _SCENE.items()
    }


@cache
def _patterns(which: str) -> Sequence[tuple[float, re.Pattern[str]]]:
    words = _BEFORE if which == "before" else _AFTER
    return [(level, re.compile(rf"\b(?:{p})(?!\w)")) for level, p in words]
