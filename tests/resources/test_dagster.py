"""The resources as a real Dagster run uses them."""

from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import yaml

from model_code.errors import CityloomError
from resources.dagster import CityResource, LakeIOManager, lake_io
from resources.lake import Handle, Lake, read

TOWNS = dg.StaticPartitionsDefinition(["town", "village", "Town", "../town", "tоwn"])
ITEMS = [3]


@dg.asset(partitions_def=TOWNS)
def coverage() -> pd.DataFrame:
    """A plain asset, whose value the IO manager writes."""
    modalities = ["pois", "imagery"]
    return pd.DataFrame(
        {"modality": modalities, "items": ITEMS[0], "regions": 1, "region_share": 0.5}
    )


@dg.asset(partitions_def=TOWNS)
def boundary_items(coverage: Handle) -> dg.MaterializeResult[Any]:
    """Reads its input only when it asks."""
    return dg.MaterializeResult(metadata={"items": int(coverage.frame()["items"].sum())})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def build(lake: Lake, *assets: Any, city: str = "town", **more: Any) -> Any:
    return dg.materialize(
        list(assets) or [coverage, boundary_items],
        partition_key=city, raise_on_error=False,
        resources={"io_manager": LakeIOManager(lake)}, **more,
    )  # fmt: skip


def why(result: Any) -> str:
    """Everything that a failed run says."""
    assert not result.success
    events = [
        e for e in result.all_events if e.is_failure or e.event_type_value == "PIPELINE_FAILURE"
    ]
    errors = [getattr(e.event_specific_data, "error", None) for e in events]
    return "\n".join(error.to_string() for error in errors if error)


# --- tables --------------------------------------------------------------------------------------


def test_a_plain_value_is_written_and_read_as_a_handle(lake):
    result = build(lake)
    assert result.success
    (made,) = result.asset_materializations_for_node("boundary_items")
    assert made.metadata["items"].value == 6
    (written,) = result.asset_materializations_for_node("coverage")
    assert written.metadata["rows"].value == 2
    table = read("coverage", "town", lake=lake.root)
    assert list(table["modality"]) == ["imagery", "pois"]  # in the order of the key
    assert lake.manifest("town", "coverage").fingerprint == ""  # known to no stage


def test_each_city_has_its_own(lake, monkeypatch):
    assert build(lake).success
    monkeypatch.setattr(f"{__name__}.ITEMS", [5])
    assert build(lake, city="village").success
    assert lake.cities() == ["town", "village"]
    assert read("coverage", "town", lake=lake.root)["items"].tolist() == [3, 3]
    assert read("coverage", "village", lake=lake.root)["items"].tolist() == [5, 5]


def test_a_partition_that_was_never_made_raises_with_advice(lake):
    assert build(lake, city="village").success
    said = why(build(lake, coverage, boundary_items, selection=[boundary_items]))
    assert "MissingTableError" in said and "'coverage' of city 'town' is not in the lake" in said
    assert "`cityloom run town` makes what is missing" in said


@pytest.mark.parametrize("city", ["Town", "../town", "tоwn"])
def test_a_partition_key_that_is_no_folder_is_refused(lake, city):
    said = why(build(lake, coverage, city=city))
    assert "DataError" in said and f"city name {city!r} cannot be a folder of the lake" in said
    assert lake.cities() == [] and not Path(lake.root).exists()


def test_a_broken_contract_keeps_the_table_that_stood(lake):
    assert build(lake).success

    @dg.asset(name="coverage", partitions_def=TOWNS)
    def broken() -> pd.DataFrame:
        return pd.DataFrame(
            {"modality": ["a"], "items": [-1], "regions": [1], "region_share": [2.0]}
        )

    said = why(build(lake, broken))
    assert "ContractError" in said and "items" in said and "region_share" in said
    assert read("coverage", "town", lake=lake.root)["items"].tolist() == [3, 3]


def test_a_table_without_a_contract_is_refused(lake):
    @dg.asset(partitions_def=TOWNS)
    def nonsense() -> pd.DataFrame:
        return pd.DataFrame({"a": [1]})

    said = why(build(lake, nonsense))
    assert "no contract for table 'nonsense'; known: adjacency, boundary" in said


def test_an_asset_without_a_city_says_how_to_name_one(lake):
    @dg.asset(name="coverage")
    def alone() -> pd.DataFrame:
        return pd.DataFrame({"a": [1]})

    result = dg.materialize(
        [alone], raise_on_error=False,
        resources={"io_manager": LakeIOManager(lake)},
    )  # fmt: skip
    assert "this run names no city" in why(result) and "dagster/partition" in why(result)


def test_the_io_manager_is_on_the_lake_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CITYLOOM_LAKE", str(tmp_path / "there"))
    assert lake_io(dg.build_init_resource_context()).lake.root == str(tmp_path / "there")


# --- cities --------------------------------------------------------------------------------------

YAML = {
    "name": "town",
    "title": "Town",
    "boundary": {"bbox": [0, 0, 1, 1]},
    "partition": {"kind": "square", "size_m": 1000},
    "sources": {"pois": [{"path": "town/pois.csv"}], "imagery": {"path": "town/image.tif"}},
    "indicators": {"crime": {"source": {"kind": "points", "path": "town/crime.csv"}}},
    "methods": {"poi": {}},
}


@pytest.fixture
def cities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of cities, of which `hamlet` has a bad YAML."""
    folder = tmp_path / "cities"
    folder.mkdir()
    for name in ("town", "village"):
        text = yaml.safe_dump(YAML | {"name": name}).replace("town/", f"{name}/")
        (folder / f"{name}.yaml").write_text(text)
    (folder / "hamlet.yaml").write_text(yaml.safe_dump(YAML | {"name": "hamlet", "tilte": 1}))
    monkeypatch.setenv("CITYLOOM_CITIES", str(folder))
    return folder


RAN: list[str] = []


@dg.op(required_resource_keys={"cities"})
def work(context: dg.OpExecutionContext) -> None:
    """A step that needs a city, as every asset does."""
    RAN.append(context.resources.cities.city(context.run.tags["dagster/partition"]).title)
    context.resources.cities.count("up to date")


@dg.job(resource_defs={"cities": CityResource()})
def whole() -> None:
    work()


def run(**tags: str) -> Any:
    RAN.clear()
    named = {f"dagster/{key}": value for key, value in tags.items()}
    return whole.execute_in_process(tags=named, raise_on_error=False)


def test_a_run_of_a_good_city_gets_it(cities, capfd):
    result = run(partition="town")
    assert result.success and RAN == ["Town"]
    assert "nothing had to be computed: 1 assets are up to date" in capfd.readouterr().err


def test_a_run_without_a_city_ends_at_once_and_lists_the_cities(cities):
    said = why(run())
    assert "this run names no city" in said and RAN == []
    for name in ("demo", "manhattan", "town", "village"):
        assert name in said
    assert """--tags '{"dagster/partition": "CITY"}'""" in said and str(cities) in said


def test_a_run_of_an_unknown_city_suggests_the_nearest(cities):
    said = why(run(partition="vilage"))
    assert "unknown city 'vilage'" in said and "did you mean 'village'?" in said and RAN == []


def test_a_run_of_a_city_with_a_bad_file_names_the_key(cities):
    said = why(run(partition="hamlet"))
    assert "tilte: unknown key" in said and "did you mean 'title'?" in said and RAN == []


def test_a_run_keeps_to_the_yaml_that_it_began_with(cities):
    titles = []

    @dg.op(required_resource_keys={"cities"})
    def edits(context: dg.OpExecutionContext) -> None:
        titles.append(context.resources.cities.city("town").title)
        file = cities / "town.yaml"
        file.write_text(file.read_text().replace("title: Town", "title: Edited"))
        titles.append(context.resources.cities.city("town").title)

    @dg.job(resource_defs={"cities": CityResource()})
    def some() -> None:
        edits()

    for _ in range(2):
        assert some.execute_in_process(tags={"dagster/partition": "town"}).success
    assert titles == ["Town", "Town", "Edited", "Edited"]


def test_a_missing_city_is_not_tried_again(cities):
    with pytest.raises(dg.DagsterResourceFunctionError) as error:
        whole.execute_in_process(tags={"dagster/partition": "nowhere"})
    failure = error.value.__cause__
    assert isinstance(failure, dg.Failure) and failure.allow_retries is False
    assert isinstance(failure.__cause__, CityloomError)


def test_what_a_run_did_is_said_at_its_end(cities, capfd):
    @dg.op(required_resource_keys={"cities"})
    def computed(context: dg.OpExecutionContext) -> None:
        context.resources.cities.count("computed")
        context.resources.cities.count("up to date")

    @dg.job(resource_defs={"cities": CityResource()})
    def some() -> None:
        computed()

    assert some.execute_in_process(tags={"dagster/partition": "town"}).success
    assert "1 assets computed, 1 up to date" in capfd.readouterr().err


def test_a_failed_step_is_not_called_up_to_date(cities, capfd):
    @dg.op(required_resource_keys={"cities"})
    def fails(context: dg.OpExecutionContext) -> None:
        context.resources.cities.count("up to date")
        context.resources.cities.failed()
        raise ValueError

    @dg.job(resource_defs={"cities": CityResource()})
    def some() -> None:
        fails()

    assert not some.execute_in_process(
        tags={"dagster/partition": "town"}, raise_on_error=False
    ).success
    said = capfd.readouterr().err
    assert "nothing had to be computed" not in said and "0 assets computed, 1 up to date" in said


def test_the_data_root_can_be_given(monkeypatch, tmp_path):
    monkeypatch.setenv("CITYLOOM_DATA", str(tmp_path))
    assert CityResource().root == str(tmp_path)
    assert CityResource(data="s3://bucket").root == "s3://bucket"
    assert CityResource(data="s3://bucket").raw().root == "s3://bucket"
