from __future__ import annotations

import pandas as pd

from model_code.report.markdown import markdown


def test_a_table_without_its_index_and_with_its_figures_as_they_stand() -> None:
    table = pd.DataFrame({"method": ["poi", "vit"], "R2": [0.5, 0.625], "n": [1, 20]}, index=[7, 9])
    assert markdown(table).splitlines() == [
        "| method | R2 | n |",
        "| --- | --- | --- |",
        "| poi | 0.5 | 1 |",
        "| vit | 0.625 | 20 |",
    ]
    assert markdown(table[:0]).splitlines() == ["| method | R2 | n |", "| --- | --- | --- |"]
