"""`cityloom`: build a city, and ask what stands, what it would take, and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from model_code.city import Cities, check_files, data_root
from model_code.errors import CityloomError, MissingTableError
from model_code.extras import PACKAGE_OF, installed
from resources.lake import Lake
from resources.raw import RawFiles

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
City = Annotated[str, typer.Argument(help="name of a file in cities/ or $CITYLOOM_CITIES")]
ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def advice() -> Iterator[None]:
    """An error that carries advice is shown as such, without a traceback, and ends the process."""
    try:
        yield
    except CityloomError as error:
        sys.exit(f"error: {error}")


def execute(job: str, city: str) -> None:
    """Run a Dagster job on one city, in a process of its own.

    Raises:
        SystemExit: with the status of a job that failed.
    """
    os.environ.setdefault("DAGSTER_HOME", str(ROOT))
    done = subprocess.run(  # noqa: S603
        [
            *(sys.executable, "-W", "ignore", "-m", "dagster", "job", "execute"),
            *("-m", "pipelines.definitions", "-j", job),
            *("-c", str(ROOT / "pipelines" / "run.yaml")),
            *("--tags", json.dumps({"dagster/partition": city})),
        ],
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)


@app.command()
def run(city: City) -> None:
    """Build a city through the Dagster job, then say where its report and leaderboard are."""
    with advice():
        Cities.load()[city]
    execute("whole_city", city)
    for asset, file in (("report", "report.html"), ("leaderboard", "leaderboard.csv")):
        # Put there by the run, under its lock.
        typer.echo(f"{asset}: {Lake().published(city, file)}")


@app.command()
def explain(city: City) -> None:
    """Say of each asset whether a run would compute it, and why."""
    from assets.stage import explain as states
    from pipelines import definitions  # noqa: F401 (fills the registry of stages)

    with advice():
        chosen, raw = Cities.load()[city], RawFiles(data_root())
        counts: dict[str, int] = {}
        for asset, state, reasons in states(chosen, Lake(), raw):
            counts[state] = counts.get(state, 0) + 1
            typer.echo(f"{state:<11} {asset:<24} {'; '.join(reasons[:4])}"
                       f"{f' (and {len(reasons) - 4} more)' if len(reasons) > 4 else ''}")  # fmt: skip
    typer.echo(", ".join(f"{n} {state}" for state, n in counts.items()))


@app.command()
def captions(
    city: City,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what it would take; loads no model")
    ] = False,
    inputs: Annotated[
        bool, typer.Option("--inputs", help="build what the asks rest on, and ask nothing")
    ] = False,
) -> None:
    """Build a city up to its captions, or say how many are missing, and what they would take."""
    with advice():
        chosen = Cities.load()[city]
    if inputs:
        execute("before_captions", city)
    if not dry_run:
        if not inputs:
            execute("up_to_captions", city)
        return
    from assets.asking import ASKING
    from assets.captions import forecasts
    from assets.descriptions import forecast_of
    from assets.stage import STAGES, open_stage

    with advice():
        if chosen.captions is None:
            raise CityloomError(
                f"the YAML of {city!r} has no captions", fix="add `captions: {}` to it"
            )
        lake = Lake()
        contexts = {
            name: open_stage(STAGES[name], chosen, lake, data_root()).look(typer.echo, typer.echo)
            for name in ASKING
            if not STAGES[name].why_absent(chosen)
        }
        try:
            looked = forecasts(contexts)
            if ctx := contexts.get("region_descriptions"):
                looked["region_descriptions"] = forecast_of(ctx)
        except MissingTableError as error:
            raise MissingTableError(
                error.what,
                fix="build what the asks rest on, which asks no captioner and costs nothing there: "
                f"cityloom captions {city} --inputs --dry-run",
            ) from error
        for name, found in looked.items():
            typer.echo(f"{name} of {city}")
            typer.echo("\n".join(found.lines()))


@app.command()
def check(city: Annotated[str, typer.Argument(help="one city; without it, all")] = "") -> None:
    """Read every city's YAML, or one, and look for its raw files; exit 1 if anything is wrong."""
    cities, wrong = Cities.load(), False
    if city:
        with advice():
            cities = Cities({city: cities[city]}, {})
    for name, error in sorted(cities.bad.items()):
        wrong = True
        typer.echo(f"{name}: {error}")
    for name, one in sorted(cities.good.items()):
        try:
            if one.simulator is None:
                check_files(one, data_root())
            typer.echo(f"{name}: in order")
        except CityloomError as error:
            wrong = True
            typer.echo(str(error))
    raise typer.Exit(int(wrong))


@app.command()
def sizes() -> None:
    """What the lake holds of each city: assets, bytes, seconds of the last computation; exit 1 if a
    city cannot be read."""
    lake, wrong = Lake(), False
    typer.echo(f"lake: {lake.root}")
    for city in lake.cities():
        try:
            timings = lake.timings(city)
        except CityloomError as error:
            wrong = True
            typer.echo(f"{city}: {error}", err=True)
            continue
        seconds, size = timings["seconds"].sum(), timings["bytes"].sum() / 2**20
        typer.echo(f"{city:<20} {len(timings):>4} assets {size:>10.1f} MiB {seconds:>10.1f} s")
    raise typer.Exit(int(wrong))


@app.command()
def clean(city: City) -> None:
    """Delete everything that the lake holds of a city; raw files stay."""
    with advice():
        Lake().remove(city)
    typer.echo(f"{city}: nothing left in {Lake().root}")


@app.command()
def extras() -> None:
    """List the optional extras: which are installed, and how to get the others."""
    for extra, package in PACKAGE_OF.items():
        state = "installed" if installed(extra) else f"missing: uv sync --inexact --extra {extra}"
        typer.echo(f"{extra:<10} {package:<22} {state}")


@app.command()
def tables() -> None:
    """Print docs/tables.md, made from the contracts."""
    from model_code.tables import markdown

    typer.echo(markdown(), nl=False)


@app.command()
def settings() -> None:
    """Print docs/methods/settings.md, made from the configs of the methods."""
    from model_code.methods.reference import page

    typer.echo(page(), nl=False)


if __name__ == "__main__":
    app()
