"""What Dagster shows of a materialisation: the same, whether it was computed or is replayed."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resources.lake import Lake, read
from tests.tiny import Place

ASK = """
import json, sys
import dagster as dg
from pipelines.definitions import methods, raw, regions
from resources.dagster import CityResource, lake_io
done = dg.materialize(
    dg.load_assets_from_modules([raw, regions, methods]), selection=sys.argv[1:], partition_key="tiny",
    resources={"cities": CityResource(), "io_manager": lake_io},
)
assert done.success
print(json.dumps({
    event.asset_key.path[-1]: {k: v.value for k, v in event.materialization.metadata.items()}
    for event in done.get_asset_materialization_events()
}))
"""


def shown(place: Place, *assets: str) -> dict[str, dict[str, Any]]:
    done = place.run("python", "-W", "ignore", "-c", ASK, *assets)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_cached_materialisation_says_what_the_new_one_said(place: Place) -> None:
    lake, assets = Lake(str(place.root / "lake")), ("buildings", "pois")
    for asset in assets:
        for file in ("current.json", "timing.json"):
            (place.root / "lake" / "tiny" / asset / file).unlink()
    new, cached = shown(place, *assets), shown(place, *assets)
    for asset in assets:
        before, about = new[asset], cached[asset]
        assert (before.pop("cached"), about.pop("cached")) == (False, True)
        assert about["seconds"] == lake.timing("tiny", asset)["seconds"] > 0
        assert before.pop("seconds") == pytest.approx(about.pop("seconds"), abs=0.001)
        assert before == about

        table, manifest = read(asset, city="tiny", lake=lake.root), lake.manifest("tiny", asset)
        assert about["rows"] == about["dagster/row_count"] == len(table)
        assert about["columns"] == len(table.columns)
        missing = table.isna().mean()
        assert about["share_missing"] == missing[missing > 0].round(4).to_dict()
        assert manifest is not None and manifest.inputs["raw"]
        assert about["fingerprint"] == manifest.fingerprint
        assert about["fingerprint_inputs"] == manifest.inputs
    assert set(cached["buildings"]["share_missing"]) == {"height_m"}
    head, _, code = cached["pois"]["picture"].removesuffix(")").partition(",")
    assert head == "![pois](data:image/png;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB"))
    assert min(pixels.shape[:2]) > 100 and pixels.std() > 5


def test_what_a_city_leaves_out_says_why(built: Place) -> None:
    about = shown(built, "mgfn_checkpoint")["mgfn_checkpoint"]
    assert about["left out"] == "the city's YAML does not name methods.mgfn"
    assert about["cached"] is False
