"""The resources as Dagster sees them: the cities of this location, and the lake's IO manager."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import dagster as dg
from pydantic import PrivateAttr

from model_code.city import Cities, City, data_root
from model_code.errors import CityloomError
from resources.lake import Handle, Lake, Staged, table_writer
from resources.raw import RawFiles

PARTITION_TAG = "dagster/partition"
Outcome = Literal["computed", "drawn anew", "up to date"]


class CityResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Gives a step its city. Every asset needs it, so that a run without a usable city ends at
    once, with the list of the cities, and before anything is computed."""

    data: str = ""
    _done: Counter[Outcome] = PrivateAttr(default_factory=Counter)
    _absent: int = PrivateAttr(default=0)
    _expected: int | None = PrivateAttr(default=None)
    _failed: bool = PrivateAttr(default=False)
    _city: City | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        run = context.run
        if run is None:
            return
        try:
            self._city = Cities.load()[run.tags.get(PARTITION_TAG)]
        except CityloomError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error

    @property
    def root(self) -> str:
        """The data root."""
        return self.data or data_root()

    def city(self, name: str) -> City:
        """The city as its YAML was when the run began."""
        if self._city is None or self._city.name != name:
            self._city = Cities.load()[name]
        return self._city

    def raw(self) -> RawFiles:
        return RawFiles(self.root)

    def failed(self) -> None:
        """Note that a step of this process failed."""
        self._failed = True

    def count(self, outcome: Outcome) -> int:
        """Note how one more step of this process ended; returns how many have."""
        self._done[outcome] += 1
        return self._done.total()

    def left_out(self) -> None:
        """Note an asset that the city does not have."""
        self._absent += 1

    def expects(self, steps: Callable[[], int]) -> int:
        """How many steps end in an outcome, asked for once a process."""
        if self._expected is None:
            self._expected = steps()
        return self._expected

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if not (self._done or self._absent) or context.log is None:
            return
        done, current = self._done["computed"], self._done["up to date"]
        what = [f"{done} assets computed, {current} up to date"]
        if not done and not self._failed:
            what = [f"nothing had to be computed: {current} assets are up to date"]
        if drawn := self._done["drawn anew"]:
            what.append(f"{drawn} drawn anew")
        if self._absent and self._city:
            what.append(f"{self._absent} left out (why: cityloom explain {self._city.name})")
        context.log.info(", ".join(what))


class LakeIOManager(dg.IOManager):
    """Commits what an asset staged, and gives downstream a lazy handle instead of data."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        city, asset = _place(context)
        if isinstance(obj, Commit):
            self.lake.commit(obj.staged, **obj.about)
            return
        from model_code.contracts import Checker
        from model_code.tables import contract

        checker = Checker(contract(asset))
        writer = table_writer(checker, obj, {"asset": asset, "city": city})
        with self.lake.lock(city, asset):
            staged = self.lake.stage(city, asset, {f"{asset}.parquet": writer})
            self.lake.commit(staged, fingerprint="")
        context.add_output_metadata({"rows": checker.rows})

    def load_input(self, context: dg.InputContext) -> Handle:
        return self.lake.handle(*_place(context))


class Commit:
    """A staged version on its way from an asset's body to the IO manager."""

    def __init__(self, staged: Staged, **about: Any) -> None:
        self.staged, self.about = staged, about


def _place(context: dg.OutputContext | dg.InputContext) -> tuple[str, str]:
    if not context.has_partition_key:
        raise dg.Failure(
            description="this run names no city: give a partition "
            """(--tags '{"dagster/partition": "CITY"}')"""
        )
    return context.partition_key, context.asset_key.path[-1]


@dg.io_manager(description="Parquet, GeoParquet and checkpoints in the lake ($CITYLOOM_LAKE).")
def lake_io(_: dg.InitResourceContext) -> LakeIOManager:
    """The IO manager on the lake that the environment names."""
    return LakeIOManager(Lake())
