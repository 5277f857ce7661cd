"""What a result depends on, as one digest: upstream results, raw files, config keys and code.

Code is followed by its source, so that nobody has to raise a version by hand: from a function,
through every name that it uses, to all project code that it can reach. Comments, docstrings and
formatting do not count. Nothing is imported for this.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("model_code", "resources", "assets")

# What these say reaches a fingerprint as data: config values, the table's contract, a method's
# settings. Their code decides how errors are worded, not what a table holds.
OPAQUE = (
    "model_code.city",
    "model_code.errors",
    "model_code.fingerprint",
    "model_code.methods",
    "model_code.rejections",
    "model_code.tables",
    "assets.stage",
    "resources.lake",
)


def digest(value: Any) -> str:
    """sha256 of a JSON-able value in its canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path | str) -> str:
    """sha256 of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Module:
    """Top-level names of one source file, and where its imports point."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.is_package = path.name == "__init__.py"
        self.names: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, str] = {}
        self._read(ast.parse(path.read_text(encoding="utf-8")).body)

    def _read(self, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.imports |= dict(_imported(node, self))
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.names.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.If | ast.Try | ast.With):
                if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
                    for branch in ("body", "orelse", "finalbody"):
                        self._read(getattr(node, branch, []))
                    for handler in getattr(node, "handlers", []):
                        self._read(handler.body)
            else:  # an assignment belongs to its targets, a bare call to the names that it touches
                for name in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
                    stored = _stores(node, name)
                    if stored or (isinstance(node, ast.Expr) and name in self.names):
                        self.names.setdefault(name, []).append(node)


def _stores(node: ast.stmt, name: str) -> bool:
    return any(
        isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
        for n in ast.walk(node)
    )


def _imported(node: ast.Import | ast.ImportFrom, module: _Module) -> Iterator[tuple[str, str]]:
    """(local name, absolute dotted target) of an import of project code."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] in PACKAGES:
                yield (
                    alias.asname or alias.name.split(".")[0],
                    (alias.name if alias.asname else alias.name.split(".")[0]),
                )
        return
    base = node.module or ""
    if node.level:
        parent = module.name.split(".")
        parent = parent[: len(parent) - node.level + (1 if module.is_package else 0)]
        base = ".".join([*parent, *([base] if base else [])])
    if base.split(".")[0] in PACKAGES:
        for alias in node.names:
            yield alias.asname or alias.name, f"{base}.{alias.name}"


@cache
def _module(name: str) -> _Module | None:
    path = ROOT.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return _Module(name, candidate)
    return None


def _split(target: str) -> tuple[str, str | None]:
    """A dotted target as (module, name in it or None)."""
    parts = target.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if _module(name):
            return name, parts[end] if end < len(parts) else None
    return target, None


class _Strip(ast.NodeTransformer):
    """Takes docstrings out, and the decorators of a root (they declare, they do not compute)."""

    def __init__(self, root: bool) -> None:
        self._root = root

    def _clean(self, node: Any) -> Any:
        self.generic_visit(node)
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if self._root and hasattr(node, "decorator_list"):
            node.decorator_list = []
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _clean


@cache
def _symbol(module_name: str, name: str, root: bool) -> tuple[str, tuple[str, ...]]:
    """Digest of one top-level name, and the dotted project targets that it uses."""
    module = _module(module_name)
    assert module is not None
    used: set[str] = set()
    dumps = []
    for original in module.names[name]:
        node = _Strip(root).visit(ast.parse(ast.unparse(original)).body[0])
        dumps.append(ast.dump(node))
        local = dict(module.imports)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                local |= dict(_imported(inner, module))
        for inner in ast.walk(node):
            chain = _chain(inner)
            if not chain:
                continue
            if chain[0] in local:
                used.add(".".join([local[chain[0]], *chain[1:]]))
            elif chain[0] in module.names and chain[0] != name:
                used.add(f"{module_name}.{chain[0]}")
    return digest(dumps), tuple(sorted(used))


def _chain(node: ast.AST) -> list[str]:
    """`a.b.c` as a list when it starts with a plain name, else empty."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def code_digests(roots: Iterable[str]) -> dict[str, str]:
    """Digest of every project symbol that the roots reach.

    Args:
        roots: `package.module:name` for a function or class, `package.module` for a whole file.
    Raises:
        KeyError: a root does not exist.
    """
    found: dict[str, str] = {}
    queue: list[tuple[str, bool]] = []
    for root in roots:
        module_name, _, name = root.partition(":")
        module = _module(module_name)
        if module is None or (name and name not in module.names):
            raise KeyError(f"no such code: {root}")
        queue += [(f"{module_name}.{n}", True) for n in ([name] if name else module.names)]
    while queue:
        target, root_symbol = queue.pop()
        module_name, symbol = _split(target)
        module = _module(module_name)
        if module is None or (module_name in OPAQUE and not root_symbol):
            continue
        if symbol is None:  # a module used as a value: all of it may be reached
            queue += [(f"{module_name}.{n}", False) for n in module.names]
            continue
        if symbol not in module.names:
            if symbol in module.imports:  # re-exported
                queue.append((module.imports[symbol], False))
            continue
        key = f"{module_name}:{symbol}"
        if key in found:
            continue
        found[key], used = _symbol(module_name, symbol, root_symbol)
        queue += [(t, False) for t in used]
    return dict(sorted(found.items()))


def data_digests(pattern: str) -> dict[str, str]:
    """Digest of files of the project that code reads at run time, such as templates."""
    return {
        str(path.relative_to(ROOT)): file_digest(path)
        for path in sorted(ROOT.glob(pattern))
        if path.is_file()
    }
