"""CLIP without pretraining on the city: what its towers see in chips and street views."""

from __future__ import annotations

from model_code.methods import ClipProbeConfig, MethodConfig, UrbanVlpConfig
from model_code.methods.base import NOWHERE, Checkpoint, Mask, RegionData, Workspace
from model_code.methods.urbanvlp import UrbanVlp


class ClipProbe(UrbanVlp):
    """The towers' features of a region's chip, and the mean of those of its street views. The tokens
    for absent modalities come from one seed, so nothing else is random."""

    def settings(self, config: MethodConfig) -> UrbanVlpConfig:
        assert isinstance(config, ClipProbeConfig)
        return UrbanVlpConfig(**dict(config), location=False, text=False)

    def pretrain(
        self,
        data: RegionData,
        config: MethodConfig,
        *,
        seed: int,
        visible: Mask,
        workspace: Workspace = NOWHERE,
    ) -> Checkpoint:
        return super().pretrain(data, config, seed=0, visible=visible, workspace=workspace)


METHOD = ClipProbe()
