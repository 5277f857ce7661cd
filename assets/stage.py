"""How every asset runs: fingerprint, lock, cache, contract, pictures. The stages stay thin.

A stage is a function from a `Context` to a `Product`. The decorator `stage` makes a Dagster asset
of it, partitioned by city:

1. take the lock of this asset and city;
2. hash what the result depends on (upstream, raw files, config keys, code);
3. if the lake has that very result, replay its metadata and stop: nothing is read or written
   (but for its picture, where the code that draws it has changed);
4. else compute, write where nobody looks, check the contract, and hand it to the IO manager,
   which puts it in place.
"""

import base64
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import dagster as dg

from model_code.city import Cities, City, CityView
from model_code.errors import CityloomError, ConfigError, ContractError, CorruptTableError
from model_code.fingerprint import code_digests, data_digests, digest
from model_code.rejections import Rejections
from model_code.tables import TABLES, Table, contract
from resources.crew import Crew
from resources.dagster import CityResource, Commit, Outcome
from resources.lake import (
    Handle,
    Lake,
    Manifest,
    Staged,
    Writer,
    bytes_writer,
    read_arrow,
    read_batches,
    signed,
    table_writer,
)
from resources.notify import tell_of_failure
from resources.raw import RawFiles
from resources.rows import RowStore

CITIES = dg.StaticPartitionsDefinition(sorted(Cities.load().good))


@dataclass(frozen=True)
class Context:
    """What a stage may see: its declared config keys, its inputs, the data root, and the names of
    the city and of the asset that it makes."""

    city: CityView
    inputs: dict[str, Handle]
    root: str
    name: str
    asset: str
    progress: Callable[[str], None]
    work: Path
    settings: Any = None
    rejections: Rejections = field(default_factory=Rejections)
    rows: Callable[[str], RowStore] | None = None
    elsewhere: dict[tuple[str, str], Handle] = field(default_factory=dict)
    crew: Crew | None = None

    def has(self, table: str) -> bool:
        """Whether the city has an optional input; one that was never made is an error."""
        return not self.inputs[table].left_out


@dataclass
class Written:
    """A staged table, for pictures and figures of the UI."""

    path: Path
    rows: int = 0

    def arrow(self, columns: list[str] | None = None) -> Any:
        return read_arrow(self.path, columns)

    def batches(self) -> Any:
        return read_batches(self.path)

    def frame(self, columns: list[str] | None = None) -> Any:
        return self.arrow(columns).to_pandas()

    def geo(self) -> Any:
        import geopandas as gpd

        return gpd.read_parquet(self.path)


@dataclass
class Product:
    """What a stage made: a table for its contract (frame, Arrow, or a stream of record batches),
    and any other files, by name.

    `unanswered` (JSON) says what a next run should try again. It becomes a part of the fingerprint:
    the stage counts as not done, and what is downstream as up to date while the same is missing.
    """

    table: Any = None
    files: dict[str, Writer] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    unanswered: dict[str, Any] = field(default_factory=dict)


Body = Callable[[Context], Product]
Picture = Callable[[Context, Written], bytes | None]  # None: there is nothing to draw


@dataclass(frozen=True)
class Stage:
    """The declaration of one asset."""

    name: str
    about: str
    group: str
    body: Body
    code: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    raw: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    table: Table | None = None
    picture: Picture | None = None
    absent: Callable[[City], str] | None = None
    before: Callable[[City, str, Callable[[str], None]], None] | None = None
    data_files: tuple[str, ...] = ()
    reads: Callable[[City], tuple[str, ...]] | None = None
    settings: Callable[[City], Any] | None = None
    elsewhere: Callable[[City], tuple[tuple[str, str], ...]] | None = None  # (city, asset)
    publish: str = ""

    def why_absent(self, city: City) -> str:
        """Why this city has no such asset; empty if it has one."""
        return self.absent(city) if self.absent else ""

    def of_any_city(self) -> bool:
        """Whether nothing that it reads or writes is of its city: cities of equal settings then have
        the same files, and one is enough to make them."""
        own = (self.inputs, self.after, self.raw, self.table, self.before, self.elsewhere)
        return not any(own)

    def read_inputs(self, city: City) -> list[str]:
        """The inputs that this city's config makes the stage read; by default all of them."""
        return sorted(self.reads(city) if self.reads else self.inputs)

    def picture_code(self) -> str | None:
        """Digest of the code that draws the picture; None without one."""
        if self.picture is None:
            return None
        body = self.picture.func if isinstance(self.picture, partial) else self.picture
        return digest(_code_of((f"{body.__module__}:{body.__name__}",), ()))

    def read_elsewhere(self, city: City, lake: Lake) -> dict[tuple[str, str], Handle]:
        """Assets of other cities that the stage reads, by city and name."""
        places = self.elsewhere(city) if self.elsewhere else ()
        return {place: lake.handle(*place) for place in places}

    def depends_on(
        self,
        city: City,
        raw: RawFiles,
        upstream: Callable[[str], str],
        elsewhere: Mapping[tuple[str, str], Handle],
    ) -> dict[str, Any]:
        """Everything that the result depends on; its digest is the fingerprint.

        Args:
            upstream: fingerprint of an input by its name.
            elsewhere: of `read_elsewhere`; what cannot be read there counts as another input.
        """
        if reason := self.why_absent(city):
            return {"absent": reason}
        code = dict(_code_of(self.code, self.data_files))
        if self.table:
            code["contract"] = digest(asdict(self.table))
        others = {f"{name}/{asset}": fingerprint_of(h) for (name, asset), h in elsewhere.items()}
        return {
            **({"elsewhere": others} if others else {}),
            "upstream": {name: upstream(name) for name in self.read_inputs(city)},
            "raw": {
                section: {path: value[:16] for path, value in files.items()}
                for section, files in raw.digests(city, self.raw).items()
            },
            "config": city.view(self.config).dump()
            | ({"settings": self.settings(city)} if self.settings else {}),
            "code": {name: value[:16] for name, value in code.items()},
        }


def fingerprint_of(handle: Handle) -> str:
    """Fingerprint of what stands, if anything; damage is an error only where it is read."""
    try:
        return handle.fingerprint
    except CorruptTableError:
        return "damaged"


STAGES: dict[str, Stage] = {}


@cache
def _code_of(roots: tuple[str, ...], data_files: tuple[str, ...]) -> dict[str, str]:
    code = code_digests(roots)
    for pattern in data_files:
        code |= data_digests(pattern)
    return code


@cache
def _note_code() -> None:
    """Digest all code at the first step of a process: what was imported then is what runs, even if
    a file changes meanwhile."""
    for declared in STAGES.values():
        _code_of(declared.code, declared.data_files)
        declared.picture_code()


def in_order() -> list[Stage]:
    """All stages, each after what it reads."""
    graph = {name: (*declared.inputs, *declared.after) for name, declared in STAGES.items()}
    return [STAGES[name] for name in TopologicalSorter(graph).static_order()]


def stage(**declared: Any) -> Callable[[Body], dg.AssetsDefinition]:
    """Make a Dagster asset of a function; see `Stage` for what can be declared. The name is the
    function's, the description its docstring, the contract that of the same name."""

    def decorate(body: Body) -> dg.AssetsDefinition:
        about = " ".join((body.__doc__ or "").split())
        return define(
            Stage(
                name=body.__name__,
                about=about,
                body=body,
                code=(f"{body.__module__}:{body.__name__}", *declared.pop("code", ())),
                **{"table": TABLES.get(body.__name__), **declared},
            )
        )

    return decorate


def define(declared: Stage) -> dg.AssetsDefinition:
    """The Dagster asset of a stage, and its place in the registry that `explain` walks."""
    if declared.name in STAGES:
        raise ValueError(f"two stages are called {declared.name!r}")
    STAGES[declared.name] = declared
    with warnings.catch_warnings():
        # Checks on partitions are a preview; without them a check would stand for all cities.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        spec = dg.AssetCheckSpec(
            "contract",
            asset=declared.name,
            blocking=True,
            description="The table keeps its contract (docs/tables.md).",
            partitions_def=CITIES,
        )

    @dg.asset(
        name=declared.name,
        description=declared.about,
        group_name=declared.group,
        kinds={*declared.kinds, "parquet"} if declared.table else set(declared.kinds),
        partitions_def=CITIES,
        # Handles are lazy, so the body makes them itself: a loaded input is an event in Dagster's log,
        # and hundreds of them are most of a cached run.
        deps=[*declared.inputs, *declared.after],
        check_specs=[spec] if declared.table else [],
        hooks={tell_of_failure},
        required_resource_keys={"cities", "io_manager"},
        output_required=True,
    )
    def run(context: dg.AssetExecutionContext) -> Iterator[Any]:
        try:
            yield from _run(declared, context)
        except Exception:
            context.resources.cities.failed()
            raise

    return run


@dataclass(frozen=True)
class Opened:
    """A stage of a city with its inputs, as a run opens it, and each process that helps the run."""

    declared: Stage
    city: City
    lake: Lake
    root: str
    handles: dict[str, Handle]
    elsewhere: dict[tuple[str, str], Handle]

    def depends_on(self) -> dict[str, Any]:
        """See `Stage.depends_on`."""
        return self.declared.depends_on(
            self.city,
            RawFiles(self.root),
            lambda asset: self.handles[asset].fingerprint,
            self.elsewhere,
        )

    def context(
        self,
        fingerprint: str,
        crew: Crew,
        progress: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> Context:
        """What the stage may see; `fingerprint` is that of what it is about to make."""
        work = self.lake.workspace(self.city.name, self.declared.name, fingerprint)
        return replace(self.look(progress, warn, crew), work=work)

    def look(
        self,
        progress: Callable[[str], None],
        warn: Callable[[str], None],
        crew: Crew | None = None,
    ) -> Context:
        """The same for whoever makes nothing: without a workspace, which belongs to a run."""
        tidies = crew is not None and crew.leads
        crew = crew or Crew(None, progress)
        declared, name = self.declared, self.city.name
        return Context(
            self.city.view(declared.config),
            {asset: self.handles[asset] for asset in declared.read_inputs(self.city)},
            self.root,
            name,
            declared.name,
            progress,
            Path(),
            declared.settings(self.city) if declared.settings else None,
            rows=cache(
                lambda kind: RowStore(self.lake, name, declared.name, kind, warn, tidies=tidies)
            ),
            elsewhere=self.elsewhere,
            crew=crew,
        )


def open_stage(declared: Stage, city: City, lake: Lake, root: str) -> Opened:
    """A stage with lazy handles on its inputs."""
    handles = {asset: lake.handle(city.name, asset) for asset in declared.inputs}
    return Opened(declared, city, lake, root, handles, declared.read_elsewhere(city, lake))


def _run(declared: Stage, context: dg.AssetExecutionContext) -> Iterator[Any]:
    _note_code()
    cities: CityResource = context.resources.cities
    lake: Lake = context.resources.io_manager.lake
    name = context.partition_key
    city = cities.city(name)
    opened = open_stage(declared, city, lake, cities.root)
    # A city of few methods leaves out most assets: a line each would hide the others.
    total = cities.expects(lambda: _present(context, city))

    def say(outcome: Outcome, what: str) -> None:
        context.log.info(f"[{cities.count(outcome):>3}/{total}] {name} · {declared.name}: {what}")

    def waiting() -> None:
        context.log.warning(f"{declared.name}: another run of {name!r} works on it; waiting")

    def progress(text: str) -> None:
        context.log.info(f"          {declared.name}: {text}")

    def context_for(fingerprint: str) -> Context:
        command = member_command(name, declared.name, fingerprint, cities.root)
        return opened.context(fingerprint, Crew(command, progress), progress, context.log.warning)

    with lake.lock(name, declared.name, on_wait=waiting):
        try:
            if declared.before:
                declared.before(city, cities.root, progress)
            inputs = opened.depends_on()
            fingerprint = digest(inputs)
            try:
                manifest = lake.manifest(name, declared.name)
            except CorruptTableError as error:  # made again below; the damage must be seen
                context.log.warning(str(error))
                manifest = None
            reason = declared.why_absent(city)
            if reason and not (manifest and manifest.fingerprint == fingerprint):
                manifest = lake.write_absent(
                    name, declared.name, reason, fingerprint=fingerprint, inputs=inputs
                )
            if manifest and manifest.fingerprint == fingerprint:
                if reason or lake.intact(manifest):
                    redrawn = None
                    if reason:
                        cities.left_out()
                    elif _outdated_picture(declared, manifest):
                        redrawn = _redrawn(declared, context_for(fingerprint), lake, manifest)
                        say("drawn anew", "its picture is drawn anew")
                    else:
                        say("up to date", "up to date")
                    if declared.publish and not reason:
                        lake.publish(name, declared.name, declared.publish)
                    yield dg.MaterializeResult(
                        **({"value": redrawn} if redrawn else {}),
                        metadata={
                            **_shown(redrawn.about["metadata"] if redrawn else manifest.metadata),
                            **({} if reason else _seconds(lake, name, declared.name)),
                            "cached": not reason,
                            **({"left out": reason} if reason else {}),
                        },
                        check_results=_replayed(declared, manifest.checks, reason),
                    )
                    return
                context.log.warning(f"{declared.name}: its file is damaged; making it again")
            started = time.perf_counter()
            twin = lake.twin(declared.name, fingerprint) if declared.of_any_city() else None
            if twin:
                copied = _copied(twin, name, lake)
                say("up to date", f"copied from {twin.city}")
                yield dg.MaterializeResult(
                    value=copied,
                    metadata={
                        **_shown(twin.metadata),
                        **_seconds(lake, twin.city, declared.name),
                        "cached": True,
                    },
                )
                return
            ctx = context_for(fingerprint)
            product = _made(declared, ctx)
            if product.unanswered:
                inputs = {**inputs, "unanswered": product.unanswered}
                fingerprint = digest(inputs)
            provenance = {
                "asset": declared.name,
                # What is of any city has the same bytes wherever it was made first.
                **({} if declared.of_any_city() else {"city": name}),
                "fingerprint": fingerprint,
                "inputs": inputs,
            }
            staged, checker = _stage(declared, ctx, lake, product, provenance)
        except ContractError as error:
            yield dg.AssetCheckResult(
                passed=False, check_name="contract", metadata={"problems": str(error)}
            )
            raise dg.Failure(description=str(error), allow_retries=False) from error
        except CityloomError as error:
            # Below, where a problem of the config shows on the data, nobody knows the YAML.
            told = (
                ConfigError(city.read_from, error.problems)
                if isinstance(error, ConfigError)
                else error
            )
            raise dg.Failure(description=str(told), allow_retries=False) from error
        metadata = _metadata(declared, ctx, product, checker, staged.folder)
        metadata["fingerprint"] = fingerprint
        metadata["fingerprint_inputs"] = inputs
        checks = [{"name": "contract", "rows": checker.rows}] if checker else []
        seconds = time.perf_counter() - started
        say("computed", f"{_rows(checker)}{seconds:.1f} s")
        yield dg.MaterializeResult(
            value=_commit(staged, fingerprint, inputs, metadata, checks),
            metadata={**_shown_items(metadata), "seconds": seconds, "cached": False},
            check_results=_replayed(declared, checks, ""),
        )
        # Dagster has called the IO manager when the generator goes on: the version is in place.
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        timing = {"seconds": round(seconds, 3), "process_peak_mib": round(peak_mib, 1)}
        lake.write_timing(name, declared.name, timing)
        if declared.publish:
            lake.publish(name, declared.name, declared.publish)


def _present(context: dg.AssetExecutionContext, city: City) -> int:
    """How many assets of the run the city has."""
    selected = context.run.asset_selection
    nodes = [node.name for node in context.job_def.nodes]
    names = [key.path[-1] for key in selected] if selected else nodes
    return sum(not STAGES[name].why_absent(city) for name in names if name in STAGES)


def member_command(city: str, asset: str, fingerprint: str, root: str) -> list[str]:
    """The command of a process that helps a run (see `assets.member`)."""
    return [
        *(sys.executable, "-W", "ignore", "-m", "assets.member"),
        city,
        asset,
        fingerprint,
        root,
    ]


def _made(declared: Stage, ctx: Context) -> Product:
    assert ctx.crew is not None
    try:
        return declared.body(ctx)
    finally:
        ctx.crew.close()


def _redrawn(declared: Stage, ctx: Context, lake: Lake, manifest: Manifest) -> Commit:
    """The version that stands, with its picture drawn anew."""
    staged = lake.stage_again(manifest)
    try:
        _draw(declared, ctx, staged, _metadata_of(manifest).get("rows", 0))
    except BaseException:
        staged.discard()
        raise
    metadata = _metadata_of(manifest) | _picture_metadata(declared, staged.folder)
    return _commit(staged, manifest.fingerprint, manifest.inputs, metadata, manifest.checks)


def _copied(twin: Manifest, city: str, lake: Lake) -> Commit:
    """The same version for another city."""
    staged = lake.stage_again(twin, city)
    return _commit(staged, twin.fingerprint, twin.inputs, _metadata_of(twin), twin.checks)


def _outdated_picture(declared: Stage, manifest: Manifest) -> bool:
    """Whether the code that draws has changed. It is no part of the fingerprint, so that a new
    colour makes nothing be computed again."""
    return _metadata_of(manifest).get("picture_code") != declared.picture_code()


def _metadata_of(manifest: Manifest) -> dict[str, Any]:
    return {entry["name"]: entry["value"] for entry in manifest.metadata}


def _commit(
    staged: Staged,
    fingerprint: str,
    inputs: dict[str, Any],
    metadata: dict[str, Any],
    checks: list[dict[str, Any]],
) -> Commit:
    entries = [{"name": name, "value": value} for name, value in metadata.items()]
    return Commit(staged, fingerprint=fingerprint, inputs=inputs, metadata=entries, checks=checks)


def _draw(declared: Stage, ctx: Context, staged: Staged, rows: int) -> None:
    if declared.picture:
        drawn = declared.picture(ctx, Written(staged.folder / f"{declared.name}.parquet", rows))
        if drawn is not None:
            staged.add("picture.png", bytes_writer(drawn))


def _stage(
    declared: Stage, ctx: Context, lake: Lake, product: Product, provenance: dict[str, Any]
) -> tuple[Staged, Any]:
    """Write the product where nobody looks; the contract is checked on the way."""
    from model_code.contracts import Checker

    files = {file: signed(file, write, provenance) for file, write in product.files.items()}
    checker = None
    if declared.table:
        checker = Checker(declared.table)
        files = {
            f"{declared.name}.parquet": table_writer(checker, product.table, provenance),
            **files,
        }
    staged = lake.stage(ctx.name, declared.name, files)
    try:
        # After the table: a stream rejects rows while it is written.
        if declared.name != "rejected" and len(ctx.rejections):
            rejected = ctx.rejections.batches(declared.name)
            writer = table_writer(Checker(contract("rejected")), rejected, provenance)
            staged.add("rejected.parquet", writer)
        _draw(declared, ctx, staged, checker.rows if checker else 0)
    except BaseException:
        staged.discard()
        raise
    return staged, checker


def _metadata(
    declared: Stage, ctx: Context, product: Product, checker: Any, folder: Path
) -> dict[str, Any]:
    """Plain JSON types only: it is kept in the lake and replayed from there."""
    metadata = dict(product.metadata)
    if checker:
        metadata["rows"] = checker.rows
        metadata["columns"] = len(checker.missing)
        metadata["share_missing"] = {
            name: round(count / checker.rows, 4)
            for name, count in checker.missing.items()
            if count and checker.rows
        }
    if len(ctx.rejections):
        lost = ctx.rejections.items_by_reason()
        metadata["rejected"] = {reason: round(items, 3) for reason, items in lost.items()}
    return metadata | _picture_metadata(declared, folder)


def _picture_metadata(declared: Stage, folder: Path) -> dict[str, Any]:
    """The picture itself, if there was anything to draw, and the digest of the code that drew it."""
    if not declared.picture:
        return {}
    found: dict[str, Any] = {"picture_code": declared.picture_code()}
    if (path := folder / "picture.png").exists():
        code = base64.b64encode(path.read_bytes()).decode()
        found["picture"] = f"![{declared.name}](data:image/png;base64,{code})"
    return found


def _shown_items(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata as Dagster shows it: pictures as Markdown, tables of figures as JSON."""
    shown: dict[str, Any] = {}
    for name, value in metadata.items():
        if isinstance(value, dict | list):
            shown[name] = dg.MetadataValue.json(value)
        elif isinstance(value, str) and value.startswith("!["):
            shown[name] = dg.MetadataValue.md(value)
        else:
            shown[name] = value
    if "rows" in metadata:
        shown["dagster/row_count"] = metadata["rows"]
    return shown


def _shown(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return _shown_items({entry["name"]: entry["value"] for entry in entries})


def _seconds(lake: Lake, city: str, asset: str) -> dict[str, float]:
    """How long the computation took whose result is shown, as far as that is known."""
    timing = lake.timing(city, asset)
    return {"seconds": timing["seconds"]} if "seconds" in timing else {}


def _replayed(
    declared: Stage, checks: list[dict[str, Any]], absent: str
) -> list[dg.AssetCheckResult]:
    if not declared.table:
        return []
    about = {"rows": checks[0]["rows"]} if checks else {"left out": absent}
    return [dg.AssetCheckResult(passed=True, check_name="contract", metadata=about)]


def _rows(checker: Any) -> str:
    return f"{checker.rows:,} rows, " if checker else ""


def fingerprints(city: City, lake: Lake, raw: RawFiles) -> dict[str, str]:
    """By asset, the fingerprint that a run would give it now."""
    found: dict[str, str] = {}
    for declared in in_order():
        elsewhere = declared.read_elsewhere(city, lake)
        found[declared.name] = digest(declared.depends_on(city, raw, found.__getitem__, elsewhere))
    return found


def explain(
    city: City, lake: Lake, raw: RawFiles, *, verify: bool = True
) -> list[tuple[str, str, list[str]]]:
    """What a run would do, in order: (asset, state, reasons); states are `up to date`,
    `left out`, `to draw` (its picture alone) and `to do`. Without `verify` files are not read, so
    damage is not seen."""
    fingerprints: dict[str, str] = {}
    found = []
    for declared in in_order():
        name = declared.name
        elsewhere = declared.read_elsewhere(city, lake)
        inputs = declared.depends_on(city, raw, fingerprints.__getitem__, elsewhere)
        fingerprints[name] = digest(inputs)
        try:
            manifest = lake.manifest(city.name, name)
        except CorruptTableError:
            found.append((name, "to do", ["its record is damaged"]))
            continue
        if "absent" in inputs:
            found.append((name, "left out", [inputs["absent"]]))
        elif manifest is None:
            found.append((name, "to do", ["it was never made"]))
        elif manifest.fingerprint != fingerprints[name]:
            found.append((name, "to do", _differences(manifest.inputs, inputs)))
        elif verify and not lake.intact(manifest):
            found.append((name, "to do", ["its file is damaged"]))
        elif _outdated_picture(declared, manifest):
            found.append((name, "to draw", ["the code of its picture changed"]))
        else:
            found.append((name, "up to date", []))
    return found


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed between two records of `depends_on`, one line a leaf."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    lines = []
    for key in sorted({*before, *after}):
        a, b = before.get(key), after.get(key)
        if a == b:
            continue
        kind, *rest = key
        what = ":".join(rest)
        if kind == "upstream":
            lines.append(f"input {what} is remade")
        elif kind == "unanswered":
            lines += [f"{a} asks that failed are made again"] if what == "count" else []
        elif kind == "config":
            lines.append(f"config {what}: {json.dumps(a)} -> {json.dumps(b)}")
        else:
            how = "new" if a is None else "gone" if b is None else "changed"
            lines.append(f"{kind} {what} {how}")
    return lines


def _leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, (*path, str(key)))
    else:
        yield path, node
