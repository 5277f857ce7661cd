"""Imagery: its description, and chips against a naive twin."""

import fsspec
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyproj import Transformer
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import from_origin

from model_code.city import Chips, ImagerySource
from model_code.errors import DataError
from model_code.geo import raster
from model_code.geo.raster import cut_chips, describe_imagery
from model_code.rejections import Rejections
from tests.model_code.geo.rasters import (
    CRS,
    NORTH,
    WEST,
    affine_3,
    checked,
    pictures,
    regions_of,
    squares,
    write_raster,
)

pytestmark = affine_3
RANGE = {"kind": "range", "low": 0.0, "high": 1000.0}


def cut(regions, root, chips=None, rejections=None, **source):
    """Chips [N, size, size, B] and the table that they come from."""
    source = ImagerySource(**{"path": "image.tif", **source})
    chips = chips or Chips(size_px=16, min_valid_share=0)
    imagery = describe_imagery(source, str(root), regions.crs)
    rejections = Rejections() if rejections is None else rejections
    table = checked(
        "region_chips",
        cut_chips(regions, imagery, source, chips, str(root), rejections),
    )
    if table is None:
        return None, None
    return pictures(table, np.uint8, chips.size_px, chips.size_px, len(source.bands)), table


def naive_chip(pixels, valid, box, pixel_m, size):
    """Mean over the exact intersection of each chip pixel with each image pixel, one by one."""
    west, south, east, north = box
    side = max(east - west, north - south)
    left, top = (west + east - side) / 2 - WEST, NORTH - (south + north + side) / 2
    step = side / size / pixel_m
    mean, share = np.zeros((size, size, len(pixels))), np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            y, x = top / pixel_m + i * step, left / pixel_m + j * step
            rows = np.arange(pixels.shape[1])
            cols = np.arange(pixels.shape[2])
            high = np.clip(np.minimum(rows + 1, y + step) - np.maximum(rows, y), 0, None)
            wide = np.clip(np.minimum(cols + 1, x + step) - np.maximum(cols, x), 0, None)
            weight = high[:, None] * wide * valid
            share[i, j] = weight.sum() / step**2
            if weight.sum() > 0:
                mean[i, j] = (pixels * weight).sum(axis=(1, 2)) / weight.sum()
    return mean, share


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (3, 90, 110), dtype=np.uint8)


# Sides of 7 to 51 image pixels for 16 chip pixels: magnified and reduced.
@pytest.mark.parametrize("side_m", [14.0, 50.0, 101.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_chips_equal_the_naive_mean(tmp_path, photo, side_m, seed):
    write_raster(tmp_path / "image.tif", photo)
    rng = np.random.default_rng(seed)
    x, y = WEST + rng.uniform(-20, 200, 6), NORTH - rng.uniform(-20, 170, 6)
    regions = regions_of(shapely.box(x, y - side_m, x + side_m, y))
    rejections = Rejections()
    chips, table = cut(regions, tmp_path, rejections=rejections)
    row = 0
    for i, box in enumerate(regions.bounds.to_numpy()):
        mean, share = naive_chip(photo, np.ones(photo.shape[1:]), box, 2.0, 16)
        near = np.abs(share - 0.5) < 1e-4  # half covered: rounding decides
        if not (share >= 0.5).any():
            assert i in rejections.frame()["row"].to_list()
            continue
        expected = np.where((share >= 0.5)[..., None], mean, 0)
        assert np.abs(chips[row] - expected)[~near].max() <= 0.501
        assert table["valid_share"][row].as_py() == pytest.approx((share >= 0.5).mean(), abs=0.02)
        row += 1
    assert row == len(chips)


@pytest.mark.parametrize("crs", [CRS, "EPSG:32619"])
@pytest.mark.parametrize("folder", ["/", "/deep/"])
def test_a_file_of_any_fsspec_url_gives_the_same_chips(tmp_path, photo, crs, folder):
    """Of a scheme that GDAL knows nothing of; warped where the image has another CRS."""
    write_raster(tmp_path / "image.tif", photo, crs=crs, tiled=True, blockxsize=32, blockysize=32)
    regions = squares(3, 4, 50.0).set_crs(crs, allow_override=True).to_crs(CRS)
    root = f"memory://{tmp_path.name}{folder}".rstrip("/")
    fs, inside = fsspec.core.url_to_fs(f"{root}/image.tif")
    fs.pipe_file(inside, (tmp_path / "image.tif").read_bytes())
    (chips, table), (local, expected) = cut(regions, root), cut(regions, tmp_path)
    np.testing.assert_array_equal(chips, local)
    assert table.equals(expected) and chips.std() > 0


@pytest.mark.parametrize("crs", [CRS, "EPSG:32619"])
@pytest.mark.parametrize("nodata", [None, 9])
def test_an_image_without_a_crs_has_that_of_the_config(tmp_path, photo, crs, nodata):
    """In place or warped, it gives the chips of the image that states it."""
    write_raster(tmp_path / "image.tif", photo, crs=crs)
    write_raster(tmp_path / "bare.tif", photo, crs=None)
    regions = squares(3, 4, 50.0).set_crs(crs, allow_override=True).to_crs(CRS)
    (chips, table), (stated, expected) = (
        cut(regions, tmp_path, path=path, nodata=nodata, crs=crs)
        for path in ("bare.tif", "image.tif")
    )
    np.testing.assert_array_equal(chips, stated)
    assert table.equals(expected) and chips.std() > 0
    bare = ImagerySource(path="bare.tif", crs=crs)
    assert describe_imagery(bare, str(tmp_path), CRS)["crs"].tolist() == [crs]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_an_image_is_a_geotiff_where_the_config_says_so(tmp_path, photo):
    write_raster(tmp_path / "image.dat", photo)
    named = ImagerySource(path="image.dat", format="geotiff")
    assert describe_imagery(named, str(tmp_path), CRS)["width_px"].tolist() == [110]
    Image.fromarray(np.moveaxis(photo, 0, -1)).save(tmp_path / "image.png")
    for root in (str(tmp_path), f"memory://{tmp_path.name}"):
        fsspec.filesystem("memory").put(str(tmp_path / "image.png"), f"/{tmp_path.name}/image.png")
        with pytest.raises(DataError, match=r"sources\.imagery\.path: cannot read") as error:
            describe_imagery(ImagerySource(path="image.png", format="geotiff"), root, CRS)
        assert "change sources.imagery.format" in error.value.fix


@pytest.mark.parametrize(
    "url", ["memory://none.tif", "memory://text.tif", "unheard_of://host/a.tif"]
)
def test_what_cannot_be_opened_by_its_url_is_told_with_the_key(url):
    fsspec.filesystem("memory").pipe_file("/text.tif", b"no picture")
    with pytest.raises(DataError, match=r"sources\.imagery\.path: cannot read the raster") as error:
        describe_imagery(ImagerySource(path=url), "", CRS)
    assert url in str(error.value)


def test_chips_equal_gdals_own_average(tmp_path, photo):
    """What the benchmark holds against: one open and read a chip."""
    write_raster(tmp_path / "image.tif", photo)
    regions = squares(3, 4, 50.0)
    chips, _ = cut(regions, tmp_path)
    for chip, box in zip(chips, regions.bounds.to_numpy(), strict=True):
        with rasterio.open(tmp_path / "image.tif") as file:
            window = file.window(*box)
            read = file.read(window=window, out_shape=(3, 16, 16), resampling=Resampling.average)
        assert np.abs(chip - np.moveaxis(read, 0, -1).astype(int)).max() <= 1


def test_a_chip_at_the_scale_of_the_image_is_the_image(tmp_path, photo):
    write_raster(tmp_path / "image.tif", photo)
    chips, table = cut(squares(2, 3, 32.0), tmp_path)
    for i in range(6):
        r, c = divmod(i, 3)
        own = photo[:, r * 16 : r * 16 + 16, c * 16 : c * 16 + 16]
        np.testing.assert_array_equal(chips[i], np.moveaxis(own, 0, -1))
    assert table["ground_m"].to_pylist() == [32.0] * 6


def test_blocks_read_as_one_keep_the_mean(tmp_path):
    """A chip pixel over 10 x 10 image pixels, and one over 40 x 40 (read as blocks of 4 x 4)."""
    pixels = np.random.default_rng(3).integers(0, 256, (1, 640, 640), dtype=np.uint8)
    write_raster(tmp_path / "image.tif", pixels, pixel_m=1.0)
    for side in (160, 640):
        chips, _ = cut(squares(1, 1, float(side)), tmp_path, bands=(1,))
        exact = pixels[0, :side, :side].reshape(16, side // 16, 16, side // 16).mean(axis=(1, 3))
        assert np.abs(chips[0, ..., 0] - exact).max() <= (
            0.501 if side == 160 else 0.75
        )  # blocks are rounded


@given(
    begin=st.floats(-5, 30),
    pace=st.floats(0.05, 4),
    size=st.integers(1, 12),
    cells=st.integers(1, 20),
)
@settings(max_examples=200, deadline=None)
def test_overlaps_are_lengths_of_intersections(begin, pace, size, cells):
    found = raster._overlaps(
        np.array([begin]), np.array([pace]), size, np.array([3]), cells, np.float64
    )[0]
    for i in range(size):
        low, high = begin + i * pace, begin + (i + 1) * pace
        for k in range(cells):
            exact = max(0.0, min(high, 4 + k) - max(low, 3 + k))
            assert found[i, k] == pytest.approx(exact, abs=1e-9)


def test_ground_size_is_centred_on_the_region(tmp_path, photo):
    write_raster(tmp_path / "image.tif", photo)
    oblong = regions_of([shapely.box(WEST + 60, NORTH - 100, WEST + 100, NORTH - 80)])
    own, table = cut(oblong, tmp_path)
    assert table["ground_m"].to_pylist() == [40.0]
    same = regions_of([shapely.box(WEST + 60, NORTH - 110, WEST + 100, NORTH - 70)])
    np.testing.assert_array_equal(own, cut(same, tmp_path)[0])
    wide, table = cut(oblong, tmp_path, Chips(size_px=16, ground_m=80, min_valid_share=0))
    assert table["ground_m"].to_pylist() == [80.0]
    around = regions_of([shapely.box(WEST + 40, NORTH - 130, WEST + 120, NORTH - 50)])
    np.testing.assert_array_equal(wide, cut(around, tmp_path)[0])


def test_order_and_memory_do_not_matter(tmp_path, photo, monkeypatch):
    """Regions in any order, tiles of any size, chips spilled to disk: the same chips."""
    write_raster(tmp_path / "image.tif", photo)
    regions = squares(5, 6, 31.0)
    chips, _ = cut(regions, tmp_path)
    order = np.random.default_rng(0).permutation(len(regions))
    shuffled = regions_of(regions.geometry.to_numpy()[order])
    np.testing.assert_array_equal(cut(shuffled, tmp_path)[0], chips[order])
    monkeypatch.setattr(raster, "TILE_PX", 20)
    monkeypatch.setattr(raster, "GATHER", 1)
    monkeypatch.setattr(raster, "IN_MEMORY_BYTES", 0)
    np.testing.assert_array_equal(cut(regions, tmp_path)[0], chips)


def test_regions_without_image_are_rejected(tmp_path, photo):
    write_raster(tmp_path / "image.tif", photo)
    far, edge = shapely.box(0, 0, 100, 100), shapely.box(WEST - 24, NORTH - 32, WEST + 8, NORTH)
    regions = regions_of([shapely.box(WEST, NORTH - 32, WEST + 32, NORTH), far, edge])
    rejections = Rejections()
    chips, table = cut(regions, tmp_path, Chips(size_px=16), rejections)
    assert table["region_id"].to_pylist() == ["r000"]
    rejected = rejections.frame().sort_values("row")
    assert rejected["row"].to_list() == [1, 2]
    assert rejected["reason"].to_list() == ["no image", "too little image"]
    chips, table = cut(regions, tmp_path, Chips(size_px=16, min_valid_share=0.25))
    assert table["region_id"].to_pylist() == ["r000", "r002"]
    assert table["valid_share"].to_pylist() == [1.0, 0.25]
    assert (chips[1][:, :12] == 0).all()
    np.testing.assert_array_equal(chips[1][:, 12:], np.moveaxis(photo[:, :16, :4], 0, -1))


def test_all_regions_outside_gives_no_batch(tmp_path, photo):
    write_raster(tmp_path / "image.tif", photo)
    rejections = Rejections()
    assert cut(regions_of([shapely.box(0, 0, 9, 9)]), tmp_path, rejections=rejections)[1] is None
    assert len(rejections) == 1


@pytest.mark.parametrize("how", ["file", "config", "nan", "alpha", "mask"])
@pytest.mark.parametrize("pixel_m", [2.0, 0.1])
def test_nodata_takes_no_part_in_the_mean(tmp_path, how, pixel_m):
    """Also where blocks are averaged while reading: 0.1 m pixels below chip pixels of 8 m."""
    repeat = round(2 / pixel_m)
    pixels = np.full((1, 32, 32), 100, np.float32 if how == "nan" else np.uint8)
    hole = np.zeros((32, 32), bool)
    hole[:, ::4] = True  # a quarter of every chip pixel's area
    hole[:8] = True
    if how in ("file", "config"):
        pixels[0, hole] = 255
    if how == "nan":
        pixels[0, hole] = np.nan
    pixels = pixels.repeat(repeat, axis=1).repeat(repeat, axis=2)
    hole = hole.repeat(repeat, axis=0).repeat(repeat, axis=1)
    path, mask = tmp_path / "image.tif", np.where(hole, 0, 255).astype(np.uint8)
    if how == "alpha":
        write_raster(path, np.concatenate([pixels, mask[None]]), pixel_m)
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
    else:
        write_raster(path, pixels, pixel_m, nodata=255 if how == "file" else None)
    if how == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    source = {"nodata": 255} if how == "config" else {}
    if how == "nan":
        source["stretch"] = {"kind": "range", "low": 0, "high": 255}
    chips, table = cut(
        squares(1, 1, 64.0), tmp_path, Chips(size_px=8, min_valid_share=0), bands=(1,), **source
    )
    assert table["valid_share"].to_pylist() == [0.75]
    assert (chips[0, :2] == 0).all()
    assert (chips[0, 2:] == 100).all()


def test_bands_and_stretch(tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 1500, (4, 32, 32)).astype(np.uint16)
    write_raster(tmp_path / "image.tif", pixels)
    chips, _ = cut(
        squares(1, 1, 64.0),
        tmp_path,
        Chips(size_px=32, min_valid_share=0),
        bands=(4, 1),
        stretch=RANGE,
    )
    expected = np.rint(pixels[[3, 0]] / 1000 * 255).clip(0, 255)
    np.testing.assert_array_equal(chips[0], np.moveaxis(expected, 0, -1))


@pytest.mark.parametrize("kind", ["rotated", "skewed", "south_up", "degrees"])
@pytest.mark.parametrize("dtype", ["float32", "int16", "uint16"])
def test_other_grids_are_warped_into_place(tmp_path, kind, dtype):
    """A picture of a plane a + b x + c y, whatever its grid, gives chips of that plane."""
    transform, crs, size = {
        "rotated": (
            Affine.translation(WEST - 60, NORTH + 200) @ Affine.rotation(-30) @ Affine.scale(2, -2),
            CRS,
            300,
        ),
        "skewed": (Affine(2, 0.4, WEST - 40, -0.3, -2, NORTH + 90), CRS, 300),
        "south_up": (Affine(2, 0, WEST - 40, 0, 2, NORTH - 500), CRS, 300),
        "degrees": (from_origin(-74.056, 40.742, 2e-5, 2e-5), "EPSG:4326", 400),
    }[kind]
    col, row = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    x, y = raster.apply(transform, np.column_stack([col.ravel(), row.ravel()])).T.reshape(
        2, size, size
    )
    if crs != CRS:
        x, y = Transformer.from_crs(crs, CRS, always_xy=True).transform(x, y)
    plane = 500 + 1.0 * (x - WEST - 100) + 0.7 * (y - NORTH + 100)
    write_raster(
        tmp_path / "image.tif", plane.round()[None].astype(dtype), transform=transform, crs=crs
    )
    left, top = WEST + 60.0, NORTH - 60.0
    regions = regions_of([shapely.box(left, top - 96, left + 96, top)])
    chips, table = cut(regions, tmp_path, bands=(1,), stretch=RANGE)
    assert table["valid_share"].to_pylist() == [1.0]
    middle = 6 * np.arange(16) + 3
    truth = 500 + (left + middle - WEST - 100) + 0.7 * (top - middle - NORTH + 100)[:, None]
    assert np.abs(chips[0, ..., 0] - truth * 0.255).max() < 1.1


def test_south_up_is_exact(tmp_path, photo):
    write_raster(tmp_path / "image.tif", photo)
    flipped = Affine(2, 0, WEST, 0, 2, NORTH - 2 * photo.shape[1])
    write_raster(tmp_path / "flipped.tif", photo[:, ::-1], transform=flipped)
    regions = squares(2, 3, 32.0)
    np.testing.assert_array_equal(
        cut(regions, tmp_path)[0], cut(regions, tmp_path, path="flipped.tif")[0]
    )


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_outside_a_rotated_image_nothing_is_valid(tmp_path, photo, dtype):
    turn = Affine.translation(WEST, NORTH) @ Affine.rotation(45) @ Affine.scale(2, -2)
    write_raster(tmp_path / "image.tif", photo.astype(dtype), transform=turn)
    regions = regions_of([shapely.box(WEST - 64, NORTH - 32, WEST + 64, NORTH + 96)])
    chips, table = cut(regions, tmp_path, stretch=RANGE)
    assert 0.2 < table["valid_share"][0].as_py() < 0.8
    assert (chips[0, 0, 0] == 0).all()


def test_description(tmp_path, photo):
    write_raster(tmp_path / "image.tif", photo, nodata=0)
    source = ImagerySource(path="image.tif")
    found = describe_imagery(source, str(tmp_path), CRS)
    checked("imagery", [found.to_wkb().pipe(_arrow)])
    row = found.iloc[0]
    assert (row["crs"], row["width_px"], row["height_px"]) == (CRS, 110, 90)
    assert (row["bands"], row["dtype"], row["nodata"]) == (3, "uint8", 0)
    assert row["pixel_x_m"] == pytest.approx(2) and row["pixel_y_m"] == pytest.approx(2)
    assert row["stretch_low"] == [0, 0, 0] and row["stretch_high"] == [255, 255, 255]
    assert row["geometry"].equals(shapely.box(WEST, NORTH - 180, WEST + 220, NORTH))


def _arrow(frame):
    import pyarrow as pa

    return pa.Table.from_pandas(frame, preserve_index=False)


def test_description_of_an_image_in_degrees(tmp_path, photo):
    write_raster(
        tmp_path / "image.tif",
        photo,
        transform=from_origin(-74.05, 40.74, 1e-4, 1e-4),
        crs="EPSG:4326",
    )
    row = describe_imagery(ImagerySource(path="image.tif"), str(tmp_path), CRS).iloc[0]
    assert row["crs"] == "EPSG:4326"
    assert row["pixel_x_m"] == pytest.approx(8.44, abs=0.05)
    assert row["pixel_y_m"] == pytest.approx(11.1, abs=0.05)


def test_percentiles_leave_nodata_out(tmp_path):
    pixels = np.random.default_rng(2).normal(500, 100, (2, 60, 50)).astype(np.float32)
    pixels[:, :20] = -9999
    write_raster(tmp_path / "image.tif", pixels, nodata=-9999)
    source = ImagerySource(
        path="image.tif", bands=(2, 1), stretch={"kind": "percentile", "low": 5, "high": 90}
    )
    row = describe_imagery(source, str(tmp_path), CRS).iloc[0]
    exact = np.percentile(pixels[[1, 0], 20:].reshape(2, -1), [5, 90], axis=1)
    np.testing.assert_allclose([row["stretch_low"], row["stretch_high"]], exact)


def test_percentiles_of_a_large_image_are_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(raster, "OVERVIEW_PX", 64)
    pixels = np.random.default_rng(2).normal(500, 100, (1, 400, 300)).astype(np.float32)
    write_raster(tmp_path / "image.tif", pixels)
    source = ImagerySource(path="image.tif", bands=(1,), stretch={"kind": "percentile"})
    first = describe_imagery(source, str(tmp_path), CRS).iloc[0]
    again = describe_imagery(source, str(tmp_path), CRS).iloc[0]
    assert first["stretch_low"] == again["stretch_low"]
    assert first["stretch_low"][0] == pytest.approx(np.percentile(pixels, 2), abs=15)
    assert first["stretch_high"][0] == pytest.approx(np.percentile(pixels, 98), abs=15)


def test_a_constant_band_is_black(tmp_path):
    write_raster(tmp_path / "image.tif", np.full((1, 32, 32), 7, np.uint16))
    chips, _ = cut(squares(1, 1, 32.0), tmp_path, bands=(1,), stretch={"kind": "percentile"})
    assert (chips == 0).all()


def test_file_urls(tmp_path, photo):
    write_raster(tmp_path / "image.tif", photo)
    regions = squares(2, 2, 40.0)
    chips, _ = cut(regions, f"file://{tmp_path}")
    np.testing.assert_array_equal(chips, cut(regions, tmp_path)[0])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"bands": (1, 2, 5)}, r"sources\.imagery\.bands.*3 band\(s\), not 5"),
        ({"path": "none.tif"}, r"sources\.imagery\.path: cannot read"),
        ({"path": "text.tif"}, r"sources\.imagery\.path: cannot read"),
        ({"path": "placeless.tif"}, r"sources\.imagery\.path.*no CRS(.|\n)*sources\.imagery\.crs"),
        ({"crs": "EPSG:2263"}, r"sources\.imagery\.crs: EPSG:2263 .*EPSG:32618"),
        ({"path": "deep.tif"}, r"sources\.imagery\.stretch.*uint16"),
        ({"path": "empty.tif", "stretch": {"kind": "percentile"}}, "no valid pixel"),
        ({"path": "cut.tif", "stretch": {"kind": "percentile"}}, "pixels cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_errors_name_the_key(tmp_path, photo, source, words):
    write_raster(tmp_path / "image.tif", photo)
    write_raster(tmp_path / "placeless.tif", photo, crs=None)
    write_raster(tmp_path / "deep.tif", photo.astype(np.uint16))
    write_raster(tmp_path / "empty.tif", np.zeros_like(photo), nodata=0)
    (tmp_path / "text.tif").write_text("no picture")
    whole = (tmp_path / "image.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=words):
        describe_imagery(ImagerySource(**{"path": "image.tif", **source}), str(tmp_path), CRS)
