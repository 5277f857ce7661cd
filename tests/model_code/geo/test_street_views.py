"""Street views: which rows become photographs, and what their pixels are."""

import datetime as dt
import hashlib
import struct
import zlib

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from PIL import Image, UnidentifiedImageError
from pyproj import Transformer

from model_code.city import StreetViewColumns, StreetViewImages, StreetViewSource
from model_code.errors import DataError
from model_code.geo.street_views import (
    inspect_image,
    read_street_views,
    region_street_views,
    to_utc,
)
from model_code.rejections import Rejections
from tests.model_code.geo.rasters import CRS, Boxes, checked, pictures, regions_of

LON, LAT = -74.05, 40.735


@pytest.fixture
def folder(tmp_path):
    """Images of all sorts, two of them broken."""
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    rgb = Image.fromarray(blocks.repeat(5, axis=0).repeat(5, axis=1))
    rgb.save(images / "rgb.png")
    rgb.save(images / "deep" / "rgb.jpg", quality=95)
    rgb.convert("L").save(images / "grey.png")
    rgb.convert("RGBA").save(images / "alpha.png")
    half = Image.new("RGB", (60, 40), "black")
    half.paste("white", (0, 0, 30, 40))
    exif = half.getexif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise: white on top
    half.save(images / "turned.jpg", exif=exif, quality=95)
    whole = (images / "deep" / "rgb.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "text.jpg").write_text("no picture")
    return tmp_path


def source(**more):
    return StreetViewSource(
        **{"path": "views.csv", "images": "images", "timezone": "America/New_York", **more}
    )


def test_a_table_of_views_may_have_any_name(folder):
    rows = pd.DataFrame({"file": ["rgb.png"], "lon": [LON], "lat": [LAT]})
    rows.to_csv(folder / "views.txt", index=False)
    views, rejections = read_street_views(source(path="views.txt", format="csv"), str(folder), CRS)
    assert views["view_id"].tolist() == ["rgb.png"] and not len(rejections)
    assert views[["lon", "lat"]].to_numpy().tolist() == [[LON, LAT]]


def write(folder, rows, name="views.csv"):
    frame = pd.DataFrame(rows)
    for column, value in (("lon", LON), ("lat", LAT)):
        if column not in frame:
            frame[column] = value
    frame.to_csv(folder / name, index=False)


def read(folder, **more):
    table, rejections = read_street_views(source(**more), str(folder), CRS)
    checked("street_views", [pa.Table.from_pandas(table, preserve_index=False)])
    return table, rejections.frame()


def test_every_row_is_a_view_or_rejected(folder):
    files = ["rgb.png", "deep/rgb.jpg", "cut.jpg", "text.jpg", "none.png", None, "../x.png",
             "rgb.png", "grey.png", "/etc/x.png", "turned.jpg", "./alpha.png"]  # fmt: skip
    lon = [LON] * len(files)
    lon[8] = None
    write(folder, {"file": files, "lon": lon})
    views, rejected = read(folder)
    assert views["view_id"].to_list() == ["alpha.png", "deep/rgb.jpg", "rgb.png", "turned.jpg"]
    assert dict(zip(rejected["row"], rejected["reason"], strict=True)) == {
        2: "unreadable image",
        3: "unreadable image",
        4: "no such image",
        5: "no file name",
        6: "file outside the images folder",
        7: "file named by an earlier row",
        8: "no coordinates",
        9: "file outside the images folder",
    }
    assert len(views) + len(rejected) == len(files)
    row = views.set_index("view_id").loc["deep/rgb.jpg"]
    content = (folder / "images/deep/rgb.jpg").read_bytes()
    assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert row["path"] == "images/deep/rgb.jpg"
    assert (row["width_px"], row["height_px"]) == (60, 40)
    turned = views.set_index("view_id").loc["turned.jpg"]
    assert (turned["width_px"], turned["height_px"]) == (40, 60)
    assert (row["lon"], row["lat"]) == (LON, LAT)
    x, y = Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform(LON, LAT)
    assert (row["x_m"], row["y_m"]) == (x, y)


def png(width, height, bits, rows=b""):
    """An RGB file of that header; without rows it promises pixels and holds none."""

    def chunk(kind, content):
        return (struct.pack(">I", len(content)) + kind + content
                + struct.pack(">I", zlib.crc32(kind + content)))  # fmt: skip

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))  # fmt: skip


def test_images_that_could_do_harm_are_kept_out_with_a_reason(folder):
    images = folder / "images"
    rgb = Image.open(images / "rgb.png")
    (images / "bomb.png").write_bytes(png(50_000, 50_000, 8))
    Image.new("1", (9_450, 9_450)).save(images / "large.png")
    (images / "zero.jpg").touch()
    rgb.convert("CMYK").save(images / "ink.jpg")
    Image.fromarray(np.full((20, 30), 0x8000, np.uint16)).save(images / "grey16.png")
    (images / "rgb16.png").write_bytes(png(3, 2, 16, (b"\0" + b"\x80\0" * 9) * 2))
    rgb.save(images / "moving.gif", save_all=True, append_images=[rgb.rotate(90)])
    rgb.save(images / "moving.png", save_all=True, append_images=[rgb.rotate(90)])
    rgb.save(images / "moving.webp", save_all=True, append_images=[rgb.rotate(90)])
    rgb.save(images / "phone.jpg", format="MPO", save_all=True, append_images=[rgb])
    want = {
        "bomb.png": "image of more than 89 million pixels",
        "large.png": "image of more than 89 million pixels",
        "zero.jpg": "empty image file",
        "ink.jpg": "CMYK image",
        "grey16.png": "image of more than 8 bits a channel",
        "rgb16.png": "image of more than 8 bits a channel",
        "moving.gif": "animated image",
        "moving.png": "animated image",
        "moving.webp": "animated image",
        "cut.jpg": "unreadable image",
    }
    files = [*want, "phone.jpg", "rgb.png"]
    write(folder, {"file": files})
    views, rejected = read(folder)
    assert views["view_id"].to_list() == ["phone.jpg", "rgb.png"]
    found = {
        files[row]: reason for row, reason in zip(rejected["row"], rejected["reason"], strict=True)
    }
    assert found == want
    assert rejected["detail"].str.contains("images/").all()


def test_a_file_that_no_reader_expects_is_an_error_of_its_own(folder):
    rgb, exif = Image.new("RGB", (4, 4)), folder / "exif.png"
    rgb.save(exif, exif=b"Exif\x00\x00II*\x00")
    rgb.save(folder / "real.eps")
    (folder / "eps.jpg").write_bytes((folder / "real.eps").read_bytes())
    assert isinstance(inspect_image(str(exif)), struct.error)
    assert isinstance(inspect_image(str(folder / "eps.jpg")), UnidentifiedImageError)


def test_columns_by_name_and_csv_url(folder):
    write(
        folder,
        {
            "photo": ["rgb.png", "grey.png", "alpha.png", "turned.jpg"],
            "east": [LON, LON, LON, 200.0],
            "north": [LAT, "somewhere", LAT, LAT],
            "angle": ["359.5", "0", "north", "0"],
        },
    )
    columns = StreetViewColumns(file="photo", lon="east", lat="north", heading_deg="angle")
    views, rejected = read(folder, columns=columns, path=f"file://{folder}/views.csv")
    assert views["heading_deg"].to_list() == [359.5]
    assert set(rejected["reason"]) == {"no coordinates", "unreadable heading"}
    assert set(rejected["row"]) == {1, 2, 3}


def test_geoparquet_with_its_own_crs(folder):
    points = gpd.GeoSeries([shapely.Point(580_100, 4_509_900)], crs=CRS)
    gpd.GeoDataFrame({"file": ["rgb.png"]}, geometry=points).to_parquet(folder / "views.parquet")
    views, _ = read(folder, path="views.parquet")
    assert (views["x_m"][0], views["y_m"][0]) == pytest.approx((580_100, 4_509_900), abs=1e-3)
    assert views["lon"][0] == pytest.approx(-74.0513, abs=1e-3)


def test_times_are_local_unless_they_say_otherwise(folder):
    clock = ["2024-07-01 12:00:00", "2024-01-01T12:00:00+02:00", None, "soon"]
    write(folder, {"file": ["rgb.png", "grey.png", "alpha.png", "turned.jpg"], "t": clock})
    views, rejected = read(folder, columns=StreetViewColumns(taken_at="t"))
    found = views.set_index("view_id")["taken_at"]
    assert found["rgb.png"] == pd.Timestamp("2024-07-01 16:00", tz="UTC")
    assert found["grey.png"] == pd.Timestamp("2024-01-01 10:00", tz="UTC")
    assert pd.isna(found["alpha.png"])
    assert rejected["reason"].to_list() == ["unreadable time"]


def test_clock_changes_and_typed_times():
    autumn, spring = "2024-11-03 01:30", "2024-03-10 02:30"  # twice there, and never
    found = to_utc(pd.Series([autumn, spring]), "America/New_York")
    assert found.to_list() == [
        pd.Timestamp("2024-11-03 05:30", tz="UTC"),
        pd.Timestamp("2024-03-10 07:00", tz="UTC"),
    ]
    aware = pd.Series([dt.datetime(2024, 1, 1, tzinfo=dt.UTC)])
    assert to_utc(aware, "America/New_York")[0] == pd.Timestamp("2024-01-01", tz="UTC")
    naive = pd.Series(pd.to_datetime(["2024-01-01"]))
    assert to_utc(naive, "America/New_York")[0] == pd.Timestamp("2024-01-01 05:00", tz="UTC")


def test_errors_name_the_key(folder):
    write(folder, {"photo": ["rgb.png"]})
    with pytest.raises(DataError, match=r"sources\.street_views\.columns\.file: no column 'file'"):
        read_street_views(source(), str(folder), CRS)
    with pytest.raises(DataError, match=r"sources\.street_views\.path: no such file"):
        read_street_views(source(path="none.csv"), str(folder), CRS)


REGIONS = regions_of(
    [
        shapely.box(580_000, 4_509_000, 581_000, 4_510_000),
        shapely.box(579_000, 4_509_000, 580_000, 4_510_000),
    ],
    ["b", "a"],
)


def join(folder, views, size=(8, 12)):
    rejections = Rejections()
    images = StreetViewImages(height_px=size[0], width_px=size[1])
    batches = region_street_views(
        views, Boxes(REGIONS), ["b", "a"], str(folder), images, rejections
    )
    table = checked("region_street_views", batches)
    return table, rejections.frame()


def test_views_by_region(folder):
    files = ["rgb.png", "grey.png", "turned.jpg", "alpha.png", "deep/rgb.jpg"]
    lon = [LON, -74.06, LON, LON, -73.0]
    write(folder, {"file": files, "lon": lon})
    views, _ = read(folder)
    table, rejected = join(folder, views)
    assert list(zip(*table.select(["region_id", "view_id"]).to_pydict().values(), strict=True)) == [
        ("a", "grey.png"), ("b", "alpha.png"), ("b", "rgb.png"), ("b", "turned.jpg"),
    ]  # fmt: skip
    assert rejected["reason"].to_list() == ["outside all regions"]
    assert rejected["detail"].to_list() == ["deep/rgb.jpg"]
    grey, alpha, rgb, turned = pictures(table, np.uint8, 8, 12, 3).astype(int)
    assert (grey == grey[..., :1]).all()
    np.testing.assert_array_equal(alpha, rgb)
    blocks = np.asarray(Image.open(folder / "images/rgb.png")).astype(int)[2::5, 2::5]
    assert np.abs(rgb - blocks).mean() < 25  # Lanczos rings; other blocks would be 85 away
    assert turned[:3].min() > 200 and turned[5:].max() < 50  # white on top


def test_batches_do_not_change_the_table(folder, monkeypatch):
    write(folder, {"file": ["rgb.png", "grey.png", "alpha.png"]})
    views, _ = read(folder)
    whole, _ = join(folder, views)
    monkeypatch.setattr(
        "model_code.geo.street_views.slices", lambda n, size: (slice(i, i + 1) for i in range(n))
    )
    assert join(folder, views)[0].equals(whole)


def test_no_view_in_any_region(folder):
    write(folder, {"file": ["rgb.png"], "lon": [10.0]})
    views, _ = read(folder)
    table, rejected = join(folder, views)
    assert table is None and len(rejected) == 1


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_images_that_changed_since_are_an_error(folder, harm):
    write(folder, {"file": ["rgb.png"]})
    views, _ = read(folder)
    if harm == "gone":
        (folder / "images/rgb.png").unlink()
    else:
        Image.new("RGB", (4, 4)).save(folder / "images/rgb.png")
    with pytest.raises(DataError, match=r"sources\.street_views\.images.*run the stage|any more"):
        join(folder, views)
