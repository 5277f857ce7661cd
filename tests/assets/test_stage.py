"""What is computed again, and what is not: on a city that the real job has built."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.tiny import ROOT, Place, unsigned

LINE = re.compile(r"\[ *\d+/\d+\] tiny · (\w+): (.*)")


def outcome(stderr: str) -> dict[str, str]:
    """By asset, `computed`, `drawn anew` or `up to date`."""
    states = {}
    others = ("drawn anew", "up to date")
    for name, text in LINE.findall(stderr):
        known = next((state for state in others if state in text), "computed")
        states[name] = known
    return states


def copy_of_code(place: Place) -> Path:
    checkout = place.root / "checkout"
    for room in ("pipelines", "assets", "resources", "model_code"):
        shutil.copytree(ROOT / room, checkout / room)
    return checkout


def rebuilt(place: Place) -> set[str]:
    """Assets that the job computes now."""
    done = place.run(*place.job())
    assert done.returncode == 0, done.stderr[-3000:]
    states = outcome(done.stderr)
    assert len(states) > 40
    return {name for name, state in states.items() if state == "computed"}


def test_nothing_changed_nothing_computed(place: Place) -> None:
    before = place.data_files()
    done = place.run(*place.job())
    assert done.returncode == 0, done.stderr[-3000:]
    assert "computed" not in outcome(done.stderr).values()
    assert "nothing had to be computed" in done.stderr
    assert place.data_files() == before


def test_every_table_and_checkpoint_says_what_it_was_made_from(built: Place) -> None:
    assert {"targets/indicators.parquet", "poi_embeddings/map.parquet"} < set(built.data_files())
    assert not unsigned(built)


def test_a_replaced_street_view_touches_what_depends_on_it(place: Place) -> None:
    images = sorted((place.root / "data" / "tiny" / "street_views" / "images").iterdir())
    shutil.copy(images[1], images[0])
    explained = place.run("cityloom", "explain", "tiny").stdout
    assert re.search(rf"to do +street_views .*{re.escape(images[0].name)} changed", explained)
    expected = {
        "raw_files",
        "street_views",
        "region_street_views",
        "coverage",
        "rejected",
        "report",
    }
    assert rebuilt(place) == expected


def test_a_heads_setting_touches_nothing_above_it(place: Place) -> None:
    config = place.config()
    config["methods"]["poi"]["config"] = {"head": "mlp"}
    place.write(config)
    assert rebuilt(place) == {
        "poi_finetuned", "poi_predictions", "poi_metrics", "hourly_metrics", "leaderboard", "comparisons",
        "report",
    }  # fmt: skip


def test_a_stage_reads_only_the_config_keys_that_it_declares(place: Place) -> None:
    config = place.config()
    config["chips"]["size_px"] = 24
    place.write(config)
    found = rebuilt(place)
    assert {"region_chips", "vit_finetuned"} <= found
    assert not found & {"regions", "pois", "poi_counts", "poi_finetuned", "targets", "splits"}


def test_changed_code_touches_its_stage_and_below(place: Place) -> None:
    """In a copy of the checkout, so that the code can be changed."""
    checkout = copy_of_code(place)
    env = {**place.env, "PYTHONPATH": str(checkout)}

    def run() -> dict[str, str]:
        done = place.run(*place.job(), env=env, cwd=checkout)
        assert done.returncode == 0, done.stderr[-3000:]
        return outcome(done.stderr)

    # The folder plays no part, nor do comments and what nobody calls.
    code = checkout / "model_code" / "evaluation" / "splits.py"
    text = code.read_text()
    code.write_text(text.replace('"""', '"""Another sentence. ', 1) + "\n\n_UNUSED = 1\n")
    assert "computed" not in run().values()
    changed = re.sub(
        r"(def make_splits\(.*?\"\"\".*?\"\"\"\n)", r"\1    _ = 1\n", text, count=1, flags=re.S
    )
    assert changed != text
    code.write_text(changed)
    computed = {name for name, state in run().items() if state == "computed"}
    assert "splits" in computed and "poi_finetuned" in computed and "report" in computed
    assert not computed & {"regions", "pois", "flows", "targets", "region_chips", "poi_checkpoint"}


def test_changed_drawing_code_redraws_pictures_and_computes_nothing(place: Place) -> None:
    """In a copy of the checkout, so that the code can be changed."""
    checkout = copy_of_code(place)
    figures = checkout / "model_code" / "report" / "figures.py"
    text = figures.read_text()
    changed = re.sub(
        r"(\ndef chip_sheet\(.*?\"\"\".*?\"\"\"\n)", r"\1    _ = 1\n", text, flags=re.S
    )
    assert changed != text
    figures.write_text(changed)
    env = {**place.env, "PYTHONPATH": str(checkout)}
    before = place.data_files()
    done = place.run(*place.job(), env=env, cwd=checkout)
    assert done.returncode == 0, done.stderr[-3000:]
    states = outcome(done.stderr)
    assert {name for name, state in states.items() if state == "computed"} == {"report"}
    assert states["region_chips"] == "drawn anew" and states["targets"] != "computed"
    assert place.data_files() == before


@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_a_damaged_file_is_said_and_made_again(place: Place, how: str) -> None:
    path = next((place.root / "lake" / "tiny" / "poi_counts").glob("*/poi_counts.parquet"))
    content = bytearray(path.read_bytes())
    good = bytes(content)
    if how == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    asked = "from resources.lake import read; read('poi_counts', city='tiny')"
    said = place.run("python", "-c", asked)
    assert said.returncode != 0 and "CorruptTableError" in said.stderr and str(path) in said.stderr
    assert rebuilt(place) == {"poi_counts"}
    assert path.read_bytes() == good
