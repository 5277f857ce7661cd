"""A table that breaks its contract never replaces the one that stands, and stops what follows."""

from __future__ import annotations

import dagster as dg
import pandas as pd
import pytest

from assets import stage as stages
from assets.stage import CITIES, Context, Product, Stage, define
from model_code.tables import Column, Table
from resources.dagster import CityResource, LakeIOManager
from resources.lake import Lake
from tests.tiny import Place

TOY = Table(
    "toy", "For this test.",
    (Column("key", "string", "key"), Column("share", "float64", "a share", low=0, high=1)),
    ("key",),
)  # fmt: skip


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STAGES", dict(stages.STAGES))


def test_a_failed_check_keeps_the_old_table(
    registry: None, built: Place, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: object
) -> None:
    city = sorted(CITIES.get_partition_keys())[0]
    monkeypatch.setenv("CITYLOOM_DATA", str(built.root / "data"))
    shares, calls = [0.5], []

    def toy(ctx: Context) -> Product:
        return Product(pd.DataFrame({"key": ["a"], "share": [shares[0]]}))

    def after(ctx: Context) -> Product:
        calls.append(ctx.inputs["toy"].frame()["share"][0])
        return Product(files={})

    # The settings stand for a config change: they make the stage run again.
    assets = [
        define(Stage("toy", "", "toys", toy, (), table=TOY, settings=lambda _: shares[0])),
        define(Stage("after_toy", "", "toys", after, (), inputs=("toy",))),
    ]
    lake = Lake(str(built.root / "toy_lake"))
    monkeypatch.setattr(CityResource, "setup_for_execution", lambda self, context: None)

    def build() -> dg.ExecuteInProcessResult:
        return dg.materialize(
            assets, partition_key=city, raise_on_error=False,
            resources={"cities": CityResource(), "io_manager": LakeIOManager(lake)},
        )  # fmt: skip

    assert build().success and calls == [0.5]
    shares[0] = 7.0
    failed = build()
    assert not failed.success and calls == [0.5]
    checks = failed.get_asset_check_evaluations()
    assert [(c.check_name, c.passed) for c in checks] == [("contract", False)]
    assert "share" in str(checks[0].metadata["problems"].value)
    assert not failed.asset_materializations_for_node("toy")
    assert lake.handle(city, "toy").frame()["share"].tolist() == [0.5]
    assert not list((built.root / "toy_lake").rglob(".writing-*"))
    again = build()  # a failed result is never cached
    assert not again.success
    shares[0] = 0.25
    assert build().success and calls == [0.5, 0.25]
