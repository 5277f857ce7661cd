from __future__ import annotations

from pathlib import Path

import pytest

from model_code.city import load_city
from model_code.demo.city_yaml import city_yaml
from model_code.errors import DataError
from model_code.methods import BY_CAPTIONS, METHODS, method_config

CITIES = Path(__file__).parents[3] / "cities"
SHIPPED = {
    "demo": {"regions": 156, "seed": 7, "captions": True},
    "demo_fast": {
        "regions": 49, "seed": 21, "seeds": (0,),
        "methods": {
            "musecl": {
                "config": {
                    "satellite_backbone": "small", "street_view_backbone": "small", "epochs": 3,
                }
            }
        },
    },
    "demo_hex": {"regions": 49, "seed": 13, "hexagons": 8, "seeds": (0,)},
    "demo_500m": {"regions": 400, "seed": 17, "cell_m": 500.0, "hourly": True, "seeds": (0,)},
    "demo_large": {
        "regions": 2500, "seed": 11, "spatial_repeats": 2, "captions": True, "ablations": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_cities_are_what_the_template_gives(name: str) -> None:
    assert (CITIES / f"{name}.yaml").read_text() == city_yaml(name, **SHIPPED[name])
    city = load_city(CITIES / f"{name}.yaml")
    assert city.simulator is not None
    assert city.simulator.regions == SHIPPED[name]["regions"]
    read = {
        modality
        for method, chosen in city.methods.items()
        for modality in {*METHODS[method].needs}
        - method_config(method, chosen.config).switched_off()
    }
    assert BY_CAPTIONS.isdisjoint(read) == (city.captions is None)
    assert (city.partition.kind == "h3") == ("hexagons" in SHIPPED[name])
    assert (city.sources.truth is None) == ("hexagons" in SHIPPED[name])  # it is by square cell
    assert list(city.seeds) == list(SHIPPED[name].get("seeds", (0, 1, 2)))
    assert all(indicator.unit or indicator.kind == "classification"
               for indicator in city.indicators.values())  # fmt: skip
    assert all(indicator.description for indicator in city.indicators.values())


def test_a_city_without_pictures_is_not_made_on_demand() -> None:
    with pytest.raises(DataError, match="simulate the city first"):
        city_yaml("a", regions=10, seed=0, images=False)


def test_what_reads_pictures_needs_pictures() -> None:
    for given, words in (({"captions": True}, "to caption"), ({"hexagons": 8}, "to compare")):
        with pytest.raises(DataError, match=f"no pictures {words}"):
            city_yaml("a", regions=10, seed=0, images=False, path="raw", **given)
