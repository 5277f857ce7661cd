"""UrbanCLIP: satellite chips against their captions.

Yan et al. 2024 (arXiv:2310.18340), in the parts of UrbanVLP: the towers of one view and the
symmetric InfoNCE between its pictures and texts. The original adds a decoder that writes the caption
from the picture, with a language-modelling loss beside the contrast; that is left out here, so a
difference to UrbanVLP is one of views, places and granularity alone.
"""

from __future__ import annotations

from model_code.methods import MethodConfig, UrbanClipConfig, UrbanVlpConfig
from model_code.methods.urbanvlp import UrbanVlp


class UrbanClip(UrbanVlp):
    """UrbanVLP with the satellite branch alone."""

    def settings(self, config: MethodConfig) -> UrbanVlpConfig:
        assert isinstance(config, UrbanClipConfig)
        return UrbanVlpConfig(**dict(config), street_views=False, location=False, beta=0)


METHOD = UrbanClip()
