"""What happens around a run: the sensor of changed files, schedules, and the hook of failures."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from model_code.demo.place import Place as Ground
from model_code.errors import CityloomError
from pipelines import definitions  # noqa: F401 (fills the registry of stages)
from pipelines.jobs import VARIABLE, _schedule, changed_raw_files, executor, tell_of_dead_runs
from resources.lake import Lake
from tests.resources.test_notify import failing_job
from tests.tiny import Place, make_place


@pytest.fixture
def here(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """This process looks at the tiny city's folders."""
    for key in ("CITYLOOM_CITIES", "CITYLOOM_DATA", "CITYLOOM_LAKE"):
        monkeypatch.setenv(key, place.env[key])
    return place


def requests() -> list[dg.RunRequest]:
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance)
        found = changed_raw_files(context)
        return [r for r in found if isinstance(r, dg.RunRequest)]


def test_the_sensor_asks_for_what_changed_files_touch_and_once(here: Place) -> None:
    assert requests() == []
    path = here.root / "data" / "tiny" / "crimes.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    (first,), (second,) = requests(), requests()
    assert first.partition_key == "tiny" and first.run_key == second.run_key
    asked = {key.path[-1] for key in first.asset_selection or ()}
    assert {"raw_files", "targets", "poi_finetuned", "report"} <= asked
    assert not asked & {"regions", "pois", "region_chips", "poi_embeddings"}
    path.write_text("\n".join(lines[:-2]) + "\n")
    assert requests()[0].run_key != first.run_key


def test_the_sensor_warns_of_a_bad_yaml(here: Place, capfd: pytest.CaptureFixture[str]) -> None:
    (here.root / "cities" / "worse.yaml").write_text("name: worse\n")
    assert requests() == []
    assert "worse is no partition" in capfd.readouterr().err


def test_a_damaged_record_stops_no_city_and_is_made_again_once(here: Place) -> None:
    config = here.config() | {"name": "early", "simulator": None}
    (here.root / "cities" / "early.yaml").write_text(yaml.safe_dump(config))
    lake = here.root / "lake"
    shutil.copytree(lake / "tiny", lake / "early")
    before = {r.partition_key: r.run_key for r in requests()}
    path = here.root / "data" / "tiny" / "crimes.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    (lake / "early" / "regions" / "current.json").write_text("{")
    first, second = ({r.partition_key: r for r in requests()} for _ in range(2))
    assert set(first) == {"early", "tiny"}
    assert dg.AssetKey("regions") in (first["early"].asset_selection or ())
    assert first["early"].run_key == second["early"].run_key != before.get("early")


def test_a_job_of_heads_touches_nothing_above_them(place: Place) -> None:
    config = place.config()
    config["chips"]["size_px"] = 24  # of a stage that `whole_city` would do anew
    place.write(config)
    done = place.run(*place.job("fine_tune"))
    assert done.returncode == 0, done.stderr[-3000:]
    line = r"\[ *\d+/(\d+)\] tiny · (\w+): (up to date)?"
    totals, names, states = zip(*re.findall(line, done.stderr), strict=True)
    assert {"poi_finetuned", "vit_predictions", "leaderboard", "report"} < set(names)
    assert not {"region_chips", "poi_checkpoint", "poi_embeddings"} & set(names)
    assert {int(total) for total in totals} == {len(names)} and all(states)
    assert re.search(r"\d+ left out \(why: cityloom explain tiny\)", done.stderr)


def test_a_schedule_requests_its_city() -> None:
    from model_code.city import Cities

    city = Cities.load().good["demo"]
    requested = _schedule("demo", city)(dg.build_schedule_context())
    assert isinstance(requested, dg.RunRequest) and requested.partition_key == "demo"


def test_a_run_that_died_is_posted_and_one_with_a_failed_step_is_not_again(
    webhook: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, posted = webhook
    with dg.DagsterInstance.ephemeral() as instance:
        result = failing_job().execute_in_process(instance=instance, raise_on_error=False)
        run = instance.get_run_by_id(result.run_id)
        dead = instance.create_run_for_job(failing_job())
        instance.report_run_failed(dead, "the process was killed")
        monkeypatch.setenv("CITYLOOM_WEBHOOK", url)
        for failed in (run, instance.get_run_by_id(dead.run_id)):
            assert failed is not None
            (event,) = instance.all_logs(failed.run_id, dg.DagsterEventType.RUN_FAILURE)
            assert event.dagster_event is not None
            context = dg.build_run_status_sensor_context(
                "tell_of_dead_runs",
                dagster_instance=instance,
                dagster_run=failed,
                dagster_event=event.dagster_event,
            ).for_run_failure()
            tell_of_dead_runs(context)
    assert [p["run_id"] for p in posted] == [dead.run_id]
    assert "the process was killed" in posted[0]["text"]


def test_a_run_without_a_city_or_with_an_unknown_one_ends_at_once(built: Place) -> None:
    for tags, said in (("{}", "names no city"), ('{"dagster/partition": "tinny"}', "tiny")):
        command = [*built.job()[:-1], tags]
        done = built.run(*command)
        assert done.returncode != 0
        assert said in done.stderr and "demo" in done.stderr, done.stderr[-2000:]


def test_one_bad_yaml_disables_that_city_alone(here: Place) -> None:
    broken = here.root / "cities" / "broken.yaml"
    broken.write_text(yaml.safe_dump({**here.config(), "name": "broken", "chips": {"pixels": 3}}))
    done = here.run(*here.job()[:-1], '{"dagster/partition": "broken"}')
    assert done.returncode != 0
    assert "broken.yaml" in done.stderr and "chips.pixels" in done.stderr
    done = here.run(*here.job())
    assert done.returncode == 0 and "broken is no partition" in done.stderr
    assert "chips.pixels" in done.stderr


# --- executors -----------------------------------------------------------------------------------


def test_an_executor_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert executor().name == "in_process_or_multiprocess"
    monkeypatch.setenv(VARIABLE, "dagster:multiprocess_executor")
    assert executor() is dg.multiprocess_executor


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("nowhere_at_all:executor", "No module named 'nowhere_at_all'"),
        ("dagster:no_such_executor", "no_such_executor"),
        ("dagster", "dagster"),
        (":executor", "Empty module name"),
        ("dagster:job", "which is no executor"),
    ],
)
def test_what_is_no_executor_is_told(monkeypatch: pytest.MonkeyPatch, said: str, why: str) -> None:
    monkeypatch.setenv(VARIABLE, said)
    with pytest.raises(CityloomError, match=re.escape(why)) as error:
        executor()
    assert f"$CITYLOOM_EXECUTOR is {said!r}" in str(error.value)
    assert "module:attribute" in error.value.fix


def test_each_step_has_the_process_that_the_executor_gives_it(tmp_path: Path) -> None:
    place = make_place(tmp_path / "place")
    outline = {
        "type": "Feature",
        "properties": {},
        "geometry": Ground(16).boundary().__geo_interface__,
    }
    (place.root / "data" / "tiny").mkdir()
    (place.root / "data" / "tiny" / "boundary.geojson").write_text(json.dumps(outline))
    env = {**place.env, VARIABLE: "dagster:multiprocess_executor"}
    dagster = ("dagster", "asset", "materialize", "-m", "pipelines.definitions")
    selected = ("--select", "boundary,regions", "--partition", "tiny")
    done = place.run(sys.executable, "-W", "ignore", "-m", *dagster, *selected, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    # Each process tells of the steps that were its own.
    assert done.stderr.count("1 assets computed, 0 up to date") == 2
    assert Lake(str(place.root / "lake")).handle("tiny", "regions").exists
