import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.report.shapes import outlines, quantised_rings

HOLE = shapely.Polygon(
    [(0, 0), (10, 0), (10, 10), (0, 10)], holes=[[(2, 2), (4, 2), (4, 4), (2, 4)]]
)
TWO_HOLES = HOLE.difference(shapely.box(6, 6, 8, 9))
PARTS = shapely.union_all([shapely.box(20, 0, 25, 5), shapely.box(30, 0, 31, 1)])


def test_outlines_keep_the_area_of_parts_and_holes() -> None:
    geometry = np.array([shapely.box(-5, 0, -1, 4), HOLE, PARTS, TWO_HOLES])
    rings, owner = outlines(geometry)
    areas = [_shoelace(ring) for ring in rings]
    assert list(owner) == [0, 1, 2, 2, 3]
    np.testing.assert_allclose(np.bincount(owner, areas), shapely.area(geometry))


def test_outlines_of_a_wrongly_turned_polygon_still_leave_its_hole_out() -> None:
    rings, _ = outlines(np.array([shapely.orient_polygons(HOLE, exterior_cw=True)]))
    np.testing.assert_allclose(_shoelace(rings[0]), HOLE.area)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.001, 1e6))
def test_quantised_squares_keep_their_shape_at_any_scale(
    rows: int, columns: int, side: float
) -> None:
    y, x = (side * a.ravel() for a in np.mgrid[:rows, :columns])
    rings = quantised_rings(shapely.box(x, y, x + side, y + side))
    assert list(rings.owner) == list(range(rows * columns))
    assert set(rings.lengths) == {5}
    assert rings.x.max() == rings.width and rings.y.max() == rings.height
    assert max(rings.width, rings.height) == 8192
    areas = [
        abs(_shoelace(np.stack([px, py], axis=1).astype(float)))
        for px, py in zip(rings.x.reshape(-1, 5), rings.y.reshape(-1, 5), strict=True)
    ]
    np.testing.assert_allclose(np.array(areas) * rings.unit**2, side**2, rtol=0.02)


def test_quantising_keeps_tiny_regions_and_holes_and_turns_north_up() -> None:
    tiny = shapely.box(500, 500, 500.1, 500.1)
    around = shapely.box(0, 0, 1000, 1000).difference(tiny)
    rings = quantised_rings(np.array([around, tiny]))
    assert list(rings.owner) == [0, 0, 1]
    north_west = quantised_rings(
        np.array([shapely.box(0, 90, 10, 100), shapely.box(90, 0, 100, 10)])
    )
    assert north_west.y[: north_west.lengths[0]].max() < north_west.y[-1]


def test_detailed_borders_are_thinned_without_gaps() -> None:
    t = np.linspace(0, 1, 5000)
    coast = np.stack([50 + np.sin(9 * t), 100 * t], axis=1)
    left = shapely.Polygon([(0, 0), *coast, (0, 100)])
    right = shapely.Polygon([(100, 0), (100, 100), *coast[::-1]])
    rings = quantised_rings(np.array([left, right]))
    assert rings.lengths.sum() < 500
    first, second = np.split(np.stack([rings.x, rings.y], axis=1), [rings.lengths[0]])
    shared = {tuple(p) for p in first} & {tuple(p) for p in second}
    assert len(shared) >= rings.lengths[0] - 3


def _shoelace(ring: np.ndarray) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)
