import pandas as pd

from model_code.evaluation.compare import ALL_TASKS
from model_code.report import gains
from tests.model_code.report.sample import ablation_rows


def test_gains_turn_rows_to_the_side_of_the_default() -> None:
    found = gains.text_gains(ablation_rows(), "urbanvlp")
    own = found[(found["over"] == "without_text") & (found["split"] == "spatial")]
    own = own.set_index("task")
    assert own["gain"].to_dict() == {
        ALL_TASKS: 0.03, "land_use": 0.02, "night_light": -0.04, "population": 0.1,
    }  # fmt: skip
    assert own.loc["night_light", ["low", "high"]].tolist() == [-0.08, -0.01]
    assert set(own.index[own["tie"]]) == {ALL_TASKS, "land_use"}
    control = found[(found["over"] == "shares") & (found["split"] == "spatial")]
    assert control.set_index("task")["gain"].to_dict() == {"night_light": -0.02, "population": 0.3}


def test_only_methods_with_variants_are_ablated() -> None:
    rows = ablation_rows()
    assert gains.ablated_methods(rows) == ["urbanvlp"]
    assert set(gains.ablation_gains(rows, "urbanvlp")["over"]) == {
        "without_text",
        "without_satellite",
    }
    others = rows[~rows["variant_a"].eq("without_text") & ~rows["variant_b"].eq("without_text")]
    assert gains.text_gains(others, "urbanvlp").empty, "no control without a variant to control"
    assert gains.ablated_methods(rows[:0]) == []


def test_what_a_city_could_not_give_changes_no_pair() -> None:
    rows = ablation_rows()
    sides = ["variant_a", "variant_b"]
    named = rows.assign(**{side: rows[side] + "_without_pois" for side in sides})
    left, right = (gains.text_gains(table, "urbanvlp") for table in (rows, named))
    pd.testing.assert_frame_equal(left, right)


def test_a_difference_that_was_not_estimable_is_left_out() -> None:
    rows = ablation_rows()
    gone = rows.assign(difference=rows["difference"].where(rows["task"] != "land_use"))
    assert "land_use" not in set(gains.text_gains(gone, "urbanvlp")["task"])


def test_sentences_count_ties_apart() -> None:
    said = gains.sentences(gains.text_gains(ablation_rows(), "urbanvlp"))
    assert said[0] == (
        "Random split, against itself without text: of 3 indicators clearly better on 1 "
        "(population), clearly worse on 1 (night light), a tie on 1; "
        "mean R²\u00a0+0.030 [\u22120.010, +0.070], a tie."
    )
    assert said[3].startswith("Spatial split, against the bare shares: of 2 indicators clearly ")
    classes = ablation_rows().query("task == 'land_use'")
    assert "mean" not in gains.sentences(gains.text_gains(classes, "urbanvlp"))[0]
