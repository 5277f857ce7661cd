"""CLIP features with LMEMR's graph and hours (a baseline of LMEMR): its image towers on pictures, its
text tower on the list of a region's POIs; no descriptions, and no contrast.

The paper keeps LMEMR's spatial and temporal modules and says nothing of the fusion: the modalities are
put side by side.
"""

from __future__ import annotations

import numpy as np

from model_code.methods import Encoded
from model_code.methods.base import Floats, RegionData
from model_code.methods.lmemr import Lmemr
from model_code.methods.modalities import towers_of
from model_code.vision.clip import encode_text_tokens

_NAMED = 8  # categories of POIs, the most frequent first


def poi_sentences(data: RegionData) -> list[str]:
    """What POIs each region has, as a sentence; empty for one without."""
    assert data.poi_counts is not None
    order = np.argsort(-data.poi_counts, axis=1, kind="stable")[:, :_NAMED]
    counts = np.take_along_axis(data.poi_counts, order, axis=1).astype(int)
    names = np.array([c.replace("_", " ") for c in data.poi_categories])[order]
    return [
        ", ".join(f"{n} {name}" for n, name in zip(*row, strict=True) if n)
        for row in zip(counts.tolist(), names.tolist(), strict=True)
    ]


class LmemrClip(Lmemr):
    """See the module."""

    def features(self, data: RegionData, config: Encoded) -> dict[str, Floats]:
        """The modalities, POIs as what the text tower makes of their list."""
        found = dict(super().features(data, config))
        if "pois" in found:
            key = ("poi sentences", str(config.tower))
            if key not in data.memo:
                texts = poi_sentences(data)
                pooled = encode_text_tokens(towers_of(data, config, "satellite"), texts)[0]
                told = np.array([bool(text) for text in texts])
                norm = np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
                data.memo[key] = np.where(told[:, None], pooled / norm, np.nan)
            found["pois"] = data.memo[key]
        return found


METHOD = LmemrClip()
