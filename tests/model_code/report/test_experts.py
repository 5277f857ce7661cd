from __future__ import annotations

import pandas as pd
import pytest

from model_code.report.experts import OWN, SHARED, by_group, expert_weights, first_fit
from tests.model_code.report.sample import expert_records


def test_every_expert_of_a_task_has_its_row_and_its_group() -> None:
    found = expert_weights(expert_records())
    assert len(found) == 2 * 2 * 3 * 6  # seeds, branches, tasks, experts of a task
    own = found.query("seed == 0 and branch == 'text' and task == 'light'")
    assert own["group"].tolist() == [OWN, OWN, "carbon", "people", SHARED, SHARED]
    assert own["number"].tolist() == [0, 1, 0, 0, 0, 1]
    assert own["weight"].tolist() == [0.06, 0.07, 0.08, 0.09, 0.1, 0.11]


def test_groups_are_summed_in_a_fit_and_averaged_over_fits() -> None:
    found = by_group(expert_weights(expert_records()))
    carbon = found.query("branch == 'image' and task == 'carbon'").set_index("group")
    assert list(carbon.index) == [OWN, "light", "people", SHARED]
    assert carbon["weight"].to_dict() == pytest.approx(
        {OWN: 0.5, "light": 0.52, "people": 0.53, SHARED: 1.09}
    )
    assert carbon.loc[OWN, "active"] == 1 and carbon.loc[SHARED, "active"] == 2
    assert (found["number"] == 0).all()


def test_the_first_fit_is_of_one_fold_and_seed() -> None:
    both = expert_weights(expert_records()[::-1])
    pd.testing.assert_frame_equal(
        first_fit(both).reset_index(drop=True), expert_weights(expert_records(1))
    )


def test_nets_of_single_tasks_have_their_own_experts_and_the_shared_ones() -> None:
    (record,) = expert_records(1, ("carbon",))
    (other,) = expert_records(1, ("light",))
    found = expert_weights([{**record, "nets": [*record["nets"], *other["nets"]]}])
    assert set(found["group"]) == {OWN, SHARED}
    assert found.groupby("task").size().to_dict() == {"carbon": 8, "light": 8}
