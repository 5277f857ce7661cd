import time

import pytest

from model_code.progress import Meter, bar, clock


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((384, 640, 10.1), "[######----] 60 % · 384 of 640 · 38/s · 0:07 left"),
        ((0, 640, 3.0), "[----------] 0 % · 0 of 640"),
        ((639, 640, 60.0), "[#########-] 99 % · 639 of 640 · 11/s · 0:00 left"),
        ((640, 640, 64.0), "[##########] 100 % · 640 of 640 · 10/s · 0:00 left"),
        ((1, 30, 125.0), "[----------] 3 % · 1 of 30 · 125 s each · 1:00:25 left"),
        ((12_000, 24_000, 4000.0), "[#####-----] 50 % · 12,000 of 24,000 · 3/s · 1:06:40 left"),
        ((0, 0, 0.0), "[##########] 100 % · 0 of 0"),
    ],
)
def test_the_bar_says_share_count_rate_and_time_left(
    given: tuple[int, int, float], said: str
) -> None:
    assert bar(*given) == said


def test_what_stood_before_does_not_count_for_the_rate() -> None:
    assert bar(30, 40, 10.0, before=20) == "[#######---] 75 % · 30 of 40 · 1/s · 0:10 left"
    assert bar(20, 40, 10.0, before=20) == "[#####-----] 50 % · 20 of 40"


def test_a_clock_reads_as_people_write_it() -> None:
    assert [clock(s) for s in (0, 7.4, 750, 3723)] == ["0:00", "0:07", "12:30", "1:02:03"]


def test_a_meter_is_silent_until_it_is_time() -> None:
    lines: list[str] = []
    quiet = Meter(lines.append, "captions", 3)
    for done in range(4):
        quiet.at(done)
    assert lines == []
    eager = Meter(lines.append, "captions", 4, every_s=0.0)
    time.sleep(0.01)
    eager.at(2)
    assert len(lines) == 1 and lines[0].startswith("captions: [#####-----] 50 % · 2 of 4 · ")
    assert lines[0].endswith(" left")
