from __future__ import annotations

import pytest

from model_code.lazy import Lazy


def test_items_are_made_when_they_are_asked_for_and_not_held() -> None:
    made: list[int] = []
    squares = Lazy(range(1, 6), lambda i: made.append(i) or i * i)
    part = squares[1:4]
    assert len(squares) == 5 and len(part) == 3 and not made
    assert part[0] == 4 and squares[-1] == 25 and made == [2, 5]
    assert list(part) == [4, 9, 16] == list(part) and part[::2][1] == 16
    assert len(made) == 2 + 3 + 3 + 1
    with pytest.raises(IndexError):
        part[3]
