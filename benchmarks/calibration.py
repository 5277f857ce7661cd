"""What calibration is worth when captions are bad: `python benchmarks/calibration.py [CITY]`.

Builds a simulated city once more with a third of its captions made wrong on purpose (a second try
fails as often as the first), pretrains UrbanVLP on the captions as they come and on the calibrated
ones, and compares both, by indicator and on the mean, with what honest captions and no captions give.
Writes docs/results/calibration.md. The city itself must have been built.
"""

from __future__ import annotations

import sys

import pandas as pd

from model_code.evaluation.caption_proof import MISSTATED, misstatement
from model_code.evaluation.compare import ALL_TASKS, compare
from pipelines.cli import ROOT, advice, execute
from pipelines.derived_cities import given, put
from resources.lake import read

METHOD, WRONG_SHARE = "urbanvlp", 1 / 3
UNCALIBRATED, NO_TEXT = "without_calibration", "without_text"


def config(city: str, name: str) -> dict[str, object]:
    """The city's YAML with bad captions, and with UrbanVLP alone."""
    known = given(city)
    known["captions"] = known["captions"] | {"wrong_share": round(WRONG_SHARE, 4)}
    variants = {UNCALIBRATED: known["methods"][METHOD]["variants"][UNCALIBRATED]}
    known["methods"] = {METHOD: known["methods"][METHOD] | {"variants": variants}}
    known.pop("schedule", None)
    return known | {"name": name, "title": f"{known['title']}, a third of the captions wrong"}


def predictions(city: str, name: str) -> dict[tuple[str, str], pd.DataFrame]:
    """Test predictions by what UrbanVLP was pretrained on."""
    honest, bad = (read(f"{METHOD}_predictions", city=place) for place in (city, name))
    chosen = {
        "honest captions, calibrated": (honest, "default"),
        "honest captions, as they come": (honest, UNCALIBRATED),
        "a third wrong, calibrated": (bad, "default"),
        "a third wrong, as they come": (bad, UNCALIBRATED),
        "no captions": (honest, NO_TEXT),
    }
    return {
        (METHOD, label): rows[rows["variant"] == variant]
        for label, (rows, variant) in chosen.items()
    }


def misstated(city: str) -> pd.DataFrame:
    """By view, the share of the captions that tell a share of the picture wrongly: of first tries, and
    of those that calibration keeps; and how many it keeps."""
    best, shares = read("calibrated_captions", city=city), read("image_shares", city=city)
    rows = best.merge(shares[["view", "image_id", "classes", "shares"]], on=["view", "image_id"])
    rows = rows[rows["shares"].map(len) > 0]
    for column in ("first_text", "text"):
        rows[f"{column}_wrong"] = [
            misstatement(text, view, classes, measured) > MISSTATED
            for text, view, classes, measured in zip(
                rows[column], rows["view"], rows["classes"], rows["shares"], strict=True
            )
        ]
    views = rows.groupby("view")
    kept = rows[rows["kept"]].groupby("view")
    table = pd.DataFrame(
        {
            "pictures": views.size(),
            "wrong at the first try": views["first_text_wrong"].mean().map("{:.1%}".format),
            "wrong and kept": kept["text_wrong"].mean().map("{:.1%}".format),
            "kept": views["kept"].mean().map("{:.1%}".format),
            "tries a picture": views["tries"].mean().map("{:.2f}".format),
        }
    )
    return table.reset_index()


def page(city: str, name: str, command: str) -> str:
    """The results in Markdown; `command` is what makes them."""
    from model_code.report.markdown import markdown

    told = predictions(city, name)
    found = compare(told, read("indicators", city=city), splits=read("splits", city=city))
    lines = [
        "# What calibration is worth when captions are bad",
        "",
        f"Made by `{command}`: UrbanVLP on `{city}`, with the "
        "template captioner's captions (`honest`), and on the same city with a third "
        "of the captions made wrong on purpose (`captions.wrong_share`): they tell the share of one "
        "element as that of another, and a second try fails as often as the first.",
        "",
        "## Captions",
        "",
        f"Wrong: a share that the text tells is off by more than {MISSTATED:g} from what is measured "
        "in the picture.",
        "",
        *(
            line
            for title, place in (("honest", city), ("a third wrong", name))
            for line in (f"### {title}", "", markdown(misstated(place)), "")
        ),
    ]
    for split in sorted(found["split"].unique()):
        rows = found[(found["split"] == split) & (found["task"] == ALL_TASKS)]
        table = pd.DataFrame(
            {
                "better": rows["variant_a"],
                "than": rows["variant_b"],
                "difference in mean R²": rows["difference"].map("{:+.4f}".format),
                "95 % interval": [
                    f"[{low:+.4f}, {high:+.4f}]{'' if low > 0 else ' (a tie)'}"
                    for low, high in zip(rows["low"], rows["high"], strict=True)
                ],
            }
        )
        lines += [f"## Mean over indicators, {split} split", "", markdown(table), ""]
    return "\n".join(lines)


def main(city: str, command: str = "", file: str = "calibration") -> None:
    """Build the city with bad captions, and write the page, a `file` of docs/results; `command` is what
    makes it, if not this script."""
    name = f"{city}_third_wrong"
    command = command or f"python benchmarks/calibration.py {city}"
    with advice():
        put({name: config(city, name)})
        execute("whole_city", name)
        text = page(city, name, command)
    results = ROOT / "docs" / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{file}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo_large")
