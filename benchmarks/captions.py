"""Does PerceptionScore tell true captions from corrupted ones?

`python benchmarks/captions.py [CITY]`: corrupts captions of pictures and prints how often each score
ranks the true caption higher, by kind of corruption. Without a city: trains the embedded CLIP of each
view and takes pictures that belong to no city. With a city that has been built: its own pictures and
its own CLIP; where it is an embedded one, the renderer tells what they show, elsewhere its captions
are swapped. Takes some minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from assets.inputs import Pictures
from model_code.backends import Clip, Painter, Picture, Segmenter, View
from model_code.calibration import CalibrationConfig, CalibrationConfigs, calibrate, score
from model_code.city import Cities, City
from model_code.demo.city_facts import chip_facts, view_facts
from model_code.demo.latents import draw_latents
from model_code.demo.pairs import Facts, satellite_pairs, street_pairs
from model_code.demo.place import EPSG, Place
from model_code.demo.streets import draw_lots, draw_streets
from model_code.evaluation.caption_proof import (
    MISSTATED,
    asks_of,
    held_out,
    judged,
    misstatement,
    proof,
    ranked,
    swapped,
)
from model_code.text.captioner import TemplateCaptioner
from model_code.vision.clip import EmbeddedClip, train_clip
from model_code.vision.clip_config import ClipConfig
from model_code.vision.painter import ScenePainter
from model_code.vision.segmentation import LandCoverSegmenter, StreetSegmenter
from resources import backends
from resources.lake import Lake, read

PAIRS = {"satellite": satellite_pairs, "street_view": street_pairs}
SEGMENTERS = {"satellite": LandCoverSegmenter, "street_view": StreetSegmenter}
TABLES = {"satellite": "region_chips", "street_view": "region_street_views"}


def of_no_city(config: ClipConfig, count: int, seed: int) -> Iterator[pd.DataFrame]:
    """The proof of each view on `count` pictures; the CLIPs are trained with seed 0. Prints what
    calibration lets through."""
    for view in get_args(View):
        pictures, texts = PAIRS[view](config.pairs + config.held_out, 0)
        clip = EmbeddedClip(train_clip(pictures, texts, config, seed=0))
        painter = ScenePainter(view, pictures.shape[1:3])
        segmenter, limits = SEGMENTERS[view](), CalibrationConfigs().of(view)
        shown = held_out(view, count, seed)
        print(let_through(view, painter, segmenter, clip, limits, shown[0], seed), flush=True)
        yield proof(view, painter, segmenter, clip, limits, shown=shown, seed=seed)


def let_through(
    view: View,
    painter: Painter,
    segmenter: Segmenter,
    clip: Clip,
    limits: CalibrationConfig,
    pictures: Sequence[Picture],
    seed: int,
) -> str:
    """What calibration keeps of the template captioner's captions, a third of them wrong on purpose."""
    asks = asks_of(view, pictures, seed)
    classes, shares = list(asks[0].shares), np.array([list(ask.shares.values()) for ask in asks])

    def scored(at: NDArray[np.int64], texts: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
        chosen = [pictures[i] for i in at]
        return score(chosen, shares[at], texts, painter, segmenter, clip, limits, seeds)

    _, best = calibrate(asks, TemplateCaptioner(1 / 3), scored, limits)
    kept = best["kept"].to_numpy()
    first, taken = (
        np.array(
            [
                misstatement(text, view, classes, shares[i]) > MISSTATED
                for text, i in zip(best[column], best["position"], strict=True)
            ]
        )
        for column in ("first_text", "text")
    )
    return (
        f"{view}, a third wrong: {first.mean():.1%} of first tries misstate a share, "
        f"{taken[kept].mean():.1%} of what is kept; {kept.mean():.1%} are kept, "
        f"{best['tries'].mean():.2f} tries a picture"
    )


def of_city(city: City, count: int, seed: int) -> Iterator[pd.DataFrame]:
    """The proof of each view on `count` pictures of a city, or on all that it has."""
    lake = Lake()
    if city.captions is None:
        raise SystemExit(f"{city.name} has no captions: add `captions: {{}}` to its YAML")
    for view, table in TABLES.items():
        handle = lake.handle(city.name, table)
        if not handle.exists:
            continue
        held = Pictures(handle, view, city.chips.min_valid_share)
        ids = held.image_id
        facts = facts_of(city, view, ids) if city.simulator else None
        known = (
            np.arange(len(ids)) if facts is None else np.flatnonzero([f is not None for f in facts])
        )
        known = known[np.argsort(ids[known])]
        chosen = np.random.default_rng(seed).permutation(known)[:count]
        pictures = [held[i] for i in chosen]
        painter = backends.painter(city.captions.painter, view, held.size_px)
        segmenter = backends.segmenter(city.captions.segmenter, view)
        if segmenter is None:
            raise SystemExit(f"{city.name} names no segmenter of the view {view}")
        clip = backends.clip(lake.handle(city.name, "clip_checkpoint"), view)
        config = city.captions.calibration.of(view)
        if facts is not None:
            shown = (pictures, [facts[i] for i in chosen])
            yield proof(view, painter, segmenter, clip, config, shown=shown, seed=seed)
        else:
            written = read("calibrated_captions", city=city.name)
            # First tries: calibration chose among the others by the score that is on trial.
            written = written[written["view"] == view].set_index("image_id")["first_text"]
            texts = written.loc[ids[chosen]]
            pictures = [p for p, text in zip(pictures, texts, strict=True) if text]
            twins = swapped([text for text in texts if text], np.random.default_rng(seed))
            yield ranked(view, judged(pictures, twins, painter, segmenter, clip, config, seed))


def facts_of(city: City, view: str, ids: np.ndarray) -> list[Facts | None]:
    """What the pictures `ids` of an embedded city show."""
    settings = city.simulator
    assert settings is not None
    if city.partition.kind != "square":
        raise SystemExit(
            f"{city.name}: the renderer tells what chips of square cells show, no others"
        )
    place = Place(settings.regions, north_km=settings.north_km)
    latents = draw_latents(place, settings.seed)
    if view == "street_view":
        facts = view_facts(draw_streets(latents), print)
        return [facts.get(str(name)) for name in ids]
    regions = read("regions", city=city.name).set_index("region_id")
    centre = regions.geometry.to_crs(EPSG).centroid.loc[ids]
    cell = place.cell(centre.x.to_numpy() - place.easting_m, centre.y.to_numpy() - place.northing_m)
    by_cell = chip_facts(draw_lots(draw_streets(latents)))
    return [by_cell[i] if i >= 0 else None for i in cell]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("city", nargs="?", help="one that has been built; without: of no city")
    parser.add_argument("--count", type=int, default=250, help="pictures a view")
    parser.add_argument("--seed", type=int, default=21, help="of the pictures and corruptions")
    parser.add_argument("--quick", action="store_true", help="a tiny CLIP, to see that it runs")
    asked = parser.parse_args()
    if asked.city:
        tables = of_city(Cities.load()[asked.city], asked.count, asked.seed)
    else:
        config = ClipConfig(pairs=64, held_out=16, epochs=1) if asked.quick else ClipConfig()
        tables = of_no_city(config, asked.count, asked.seed)
    print(pd.concat(tables, ignore_index=True).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
