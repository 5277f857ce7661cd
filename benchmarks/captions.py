"""Does PerceptionScore tell true captions from corrupted ones? `python benchmarks/captions.py`

Trains the embedded CLIP of each view, corrupts captions of pictures that it has not seen, and prints
how often each score ranks the true caption higher, by kind of corruption. Takes some minutes.
"""

from __future__ import annotations

import argparse
from typing import get_args

import pandas as pd

from model_code.backends import View
from model_code.calibration import CalibrationConfig
from model_code.demo.pairs import satellite_pairs, street_pairs
from model_code.evaluation.caption_proof import proof
from model_code.vision.clip import EmbeddedClip, train_clip
from model_code.vision.clip_config import ClipConfig
from model_code.vision.painter import ScenePainter
from model_code.vision.segmentation import LandCoverSegmenter, StreetSegmenter

PAIRS = {"satellite": satellite_pairs, "street_view": street_pairs}
SEGMENTERS = {"satellite": LandCoverSegmenter, "street_view": StreetSegmenter}


def prove(view: View, config: ClipConfig, count: int, seed: int) -> pd.DataFrame:
    """The proof of one view on `count` pictures; the CLIP is trained with seed 0."""
    pictures, texts = PAIRS[view](config.pairs + config.held_out, 0)
    clip = EmbeddedClip(train_clip(pictures, texts, config, seed=0))
    painter = ScenePainter(view, pictures.shape[1:3])
    return proof(
        view, painter, SEGMENTERS[view](), clip, CalibrationConfig(), count=count, seed=seed
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=250, help="pictures a view")
    parser.add_argument("--seed", type=int, default=21, help="of the pictures")
    parser.add_argument("--quick", action="store_true", help="a tiny CLIP, to see that it runs")
    asked = parser.parse_args()
    config = ClipConfig(pairs=64, held_out=16, epochs=1) if asked.quick else ClipConfig()
    tables = [prove(view, config, asked.count, asked.seed) for view in get_args(View)]
    print(pd.concat(tables, ignore_index=True).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
