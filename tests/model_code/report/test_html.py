import base64
import dataclasses
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_code.report import html
from model_code.report.html import ReportData, render_report
from model_code.report.labels import method_label
from tests.model_code.report.sample import EVIL, report_data


class Parsed(HTMLParser):
    """Start tags with their attributes, and the text of script elements, as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data


def unpack(packed: dict[str, Any]) -> np.ndarray:
    steps = np.frombuffer(base64.b64decode(packed["q"]), "<u2").astype(float)
    values = np.where(steps == 65535, np.nan, packed["low"] + packed["step"] * steps)
    return np.expm1(values) if packed.get("log") else values


@pytest.fixture(scope="module")
def data() -> ReportData:
    return report_data()


@pytest.fixture(scope="module")
def payload(data: ReportData) -> Any:
    return json.loads(Parsed(render_report(data)).scripts[0])


def head_figures(data: ReportData) -> dict[str, str]:
    """Label to value, as the page's head shows them."""
    listed = render_report(data).split('<dl class="key-figures">')[1].split("</dl>")[0]
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", listed))


def test_a_method_counts_once_and_its_variants_apart(data: ReportData) -> None:
    assert head_figures(data)["methods"] == "3" and "further variants" not in head_figures(data)
    vit = data.summary[data.summary["method"] == "vit"]
    others = [vit.assign(variant=variant) for variant in ("default", "large")]
    more = dataclasses.replace(data, summary=pd.concat([data.summary, *others], ignore_index=True))
    assert head_figures(more)["methods"] == "3"
    assert head_figures(more)["further variants"] == "2"


def test_the_page_is_the_same_each_time_and_small(data: ReportData) -> None:
    page = render_report(data)
    assert page == render_report(data)
    assert len(page.encode()) < 3e6


def test_a_large_city_stays_under_its_size() -> None:
    small, large = (render_report(report_data(*n, pictures=False)) for n in ((5, 5), (20, 20)))
    a_region = (len(large.encode()) - len(small.encode())) / (400 - 25)
    pictures = 8 * 150_000 * 4 / 3
    # 13 indicators, 12 methods and 2 splits are ten times the sample's.
    assert 10 * a_region * 2500 + pictures < 12e6


def test_a_small_city_is_said_to_prove_nothing(
    data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "For showing, not for proving" in render_report(data)
    monkeypatch.setattr(html, "PROVING_REGIONS", len(data.regions))
    assert "For showing, not for proving" not in render_report(data)


def test_nothing_is_loaded_from_anywhere(data: ReportData) -> None:
    parsed = Parsed(render_report(data))
    for _, attributes in parsed.tags:
        for name in ("src", "href", "srcset", "action", "style", "onclick", "onerror"):
            value = attributes.get(name)
            assert (
                value is None
                or value.startswith(("#", "data:image/png;base64,", "data:image/jpeg;base64,"))
                or value == "data:,"
            )
    policy = next(a["content"] for _, a in parsed.tags if a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy


def test_markup_in_names_stays_text() -> None:
    parsed = Parsed(render_report(report_data(4, 5, evil=True, pictures=False)))
    assert len(parsed.scripts) == 2
    assert not any(tag == "img" and a.get("src") == "x" for tag, a in parsed.tags)
    assert json.loads(parsed.scripts[0])["regions"]["ids"][0] == EVIL


def test_numbers_come_from_the_tables(data: ReportData, payload: Any) -> None:
    ids = list(data.regions["region_id"])
    table = data.predictions["chip_pca"]
    rows = table[(table["task"] == "population") & (table["split"] == "spatial")]
    fit = next(
        f
        for f in payload["fits"]
        if (f["method"], f["task"], f["split"]) == ("chip_pca", "population", "spatial")
    )
    values, errors = unpack(fit["value"]), unpack(fit["error"])
    for i, region in enumerate(ids):
        own = rows[rows["region_id"] == region]
        assert values[i] == pytest.approx(own["y_pred_original"].mean(), rel=1e-3)
        assert errors[i] == pytest.approx((own["y_pred"] - own["y_true"]).mean(), abs=1e-4)
    truth = data.targets[data.targets["indicator"] == "population"].set_index("region_id")["value"]
    np.testing.assert_allclose(unpack(payload["truth"]["population"]), truth.loc[ids], rtol=1e-3)


def test_regions_in_no_test_part_are_missing(data: ReportData, payload: Any) -> None:
    table = data.predictions["poi"]
    rows = table[(table["task"] == "night_light") & (table["split"] == "random")]
    fit = next(
        f
        for f in payload["fits"]
        if (f["method"], f["task"], f["split"]) == ("poi", "night_light", "random")
    )
    tested = data.regions["region_id"].isin(rows["region_id"]).to_numpy()
    assert 0 < fit["tested"] == tested.sum() < len(tested)
    assert (np.isfinite(unpack(fit["value"])) == tested).all()


def test_classes_take_the_most_frequent_vote() -> None:
    rows = pd.DataFrame(
        [("a", 0, 0), ("a", 0, 2), ("a", 0, 2), ("b", 1, 2), ("b", 1, 1), ("c", 2, 2)],
        columns=["region_id", "y_true", "y_pred"],
    )
    fit = html._class_fit(rows, pd.Index(["a", "b", "c", "d"]), 3)
    np.testing.assert_array_equal(unpack(fit["value"]), [2, 1, 2, np.nan])
    np.testing.assert_allclose(unpack(fit["error"]), [2 / 3, 1 / 2, 0, np.nan], atol=1e-4)
    assert fit["confusion"] == [[1, 0, 2], [0, 1, 1], [0, 0, 1]]


def test_the_board_holds_every_fit(data: ReportData, payload: Any) -> None:
    row = next(
        r
        for r in payload["board"]
        if (r["method"], r["task"], r["split"]) == ("vit · small", "poi_count", "spatial")
    )
    found = data.leaderboard
    found = found[
        (found["method"] == "vit") & (found["task"] == "poi_count") & (found["split"] == "spatial")
    ]
    rmse = found[(found["metric"] == "rmse") & (found["scale"] == "original")]["value"]
    assert row["figures"]["rmse_original"]["runs"] == [float(f"{v:.4g}") for v in rmse]
    assert row["figures"]["rmse_original"]["mean"] == pytest.approx(rmse.mean(), rel=1e-3)
    assert row["inputs"] == "imagery" and row["rank"] == 2 and not row["contained"]


def test_raw_files_of_a_folder_are_one_row(data: ReportData) -> None:
    rows = html._raw_file_rows(data.raw_files)
    assert [r["source"] for r in rows] == [
        "sources.imagery", "sources.pois", "sources.street_views",
    ]  # fmt: skip
    assert rows[2]["path"] == "sample/views/a.jpg and 1 more" and rows[2]["bytes"] == 43_000


def test_two_variants_of_one_method_stand_apart(data: ReportData) -> None:
    poi = data.predictions["poi"]
    both = pd.concat([poi, poi.assign(variant="wide")])
    changed = dataclasses.replace(data, predictions={"poi": both})
    names = {fit["method"] for fit in html._payload(changed)["fits"]}
    assert names == {"poi", "poi · wide"} == {method_label("poi", v) for v in ("default", "wide")}


@given(
    st.lists(st.floats(-1e9, 1e9) | st.just(float("nan")), min_size=1, max_size=40), st.booleans()
)
def test_packed_numbers_keep_three_digits_of_their_range(values: list[float], log: bool) -> None:
    numbers = np.abs(values) if log else np.array(values)
    found = unpack(html._packed(pd.Series(numbers), log=log))
    assert (np.isnan(found) == np.isnan(numbers)).all()
    known = numbers[~np.isnan(numbers)]
    reach = np.ptp(known) if len(known) else 0
    allowed = 1e-3 * (1 + known) if log else 1e-4 * reach + 1e-9 * np.abs(known) + 1e-300
    assert (np.abs(found[~np.isnan(numbers)] - known) <= allowed).all()


def test_percents_and_sizes_are_honest() -> None:
    assert [html._percent(v) for v in (0, 0.001, 0.5, 0.999, 1)] == [
        "0 %", "< 1 %", "50 %", "> 99 %", "100 %",
    ]  # fmt: skip
    assert [html._size(v) for v in (12, 2_500, 3.1e9)] == ["12 B", "2.5 kB", "3.1 GB"]


def test_the_script_names_only_elements_of_the_page(data: ReportData) -> None:
    page = render_report(data)
    ids = {a["id"] for _, a in Parsed(page).tags if "id" in a}
    assert set(re.findall(r'byId\("([\w-]+)"\)', page)) <= ids
