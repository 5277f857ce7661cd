from __future__ import annotations

import pytest

from model_code import errors
from model_code.errors import CityloomError, ConfigError, ContractError, DataError, Problem


def test_an_error_says_what_is_wrong_and_then_how_to_mend_it() -> None:
    error = CityloomError("the lake is full", fix="free some space")
    assert str(error) == "the lake is full\n  fix: free some space"
    assert (error.what, error.fix) == ("the lake is full", "free some space")
    assert str(CityloomError("nothing to advise")) == "nothing to advise"


def test_a_config_error_holds_every_problem_with_its_key_and_fix() -> None:
    problems = [
        Problem("crs", "is no CRS", "write EPSG:32618"),
        Problem("sources.pois.0.path", "no such file", "put it there"),
    ]
    error = ConfigError("cities/town.yaml", iter(problems))
    assert error.problems == problems and error.source == "cities/town.yaml"
    assert str(error).splitlines() == [
        "cities/town.yaml: 2 problem(s)",
        "  crs: is no CRS",
        "      fix: write EPSG:32618",
        "  sources.pois.0.path: no such file",
        "      fix: put it there",
    ]
    assert repr(problems[0]) == "Problem('crs', 'is no CRS', 'write EPSG:32618')"


def test_every_error_of_a_user_is_caught_as_one() -> None:
    own = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(own) > 10 and all(issubclass(e, CityloomError) for e in own)
    with pytest.raises(DataError, match="fix: mend it"):
        raise ContractError("table 'pois' breaks its contract", fix="mend it")
