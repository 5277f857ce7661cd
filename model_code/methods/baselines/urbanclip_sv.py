"""UrbanCLIP-SV: UrbanCLIP on street views, the baseline of the UrbanVLP paper.

The mean of a region's street views against the caption of one of them; what the original has beyond
that stands in `urbanclip`.
"""

from __future__ import annotations

from model_code.methods import MethodConfig, UrbanClipConfig, UrbanVlpConfig
from model_code.methods.urbanvlp import UrbanVlp


class UrbanClipSv(UrbanVlp):
    """UrbanVLP with the street-view branch alone, and without its contrast by tokens."""

    def settings(self, config: MethodConfig) -> UrbanVlpConfig:
        assert isinstance(config, UrbanClipConfig)
        return UrbanVlpConfig(**dict(config), satellite=False, location=False, beta=0)


METHOD = UrbanClipSv()
