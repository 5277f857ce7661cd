"""What a result depends on, as one digest: upstream results, raw files, config keys and code.

Code is followed by its source, so that nobody has to raise a version by hand: from a function,
through every name that it uses, to all project code that it can reach. Comments, docstrings and
formatting do not count. Nothing is imported for this.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import copy
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("model_code", "resources", "assets")

# What these say reaches a fingerprint as data (the table's contract, a method's settings), or has a
# version of its own (the lake's layout), or decides only how an error is worded.
OPAQUE = (
    "model_code.errors",
    "model_code.fingerprint",
    "model_code.methods",
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


def code_digests(roots: Iterable[str]) -> dict[str, str]:
    """Digest of every project symbol that the roots reach; see `CodeGraph.digests`."""
    return _project().digests(roots)


def data_digests(pattern: str) -> dict[str, str]:
    """Digest of files of the project that code reads at run time, such as templates."""
    return {
        str(path.relative_to(ROOT)): file_digest(path)
        for path in sorted(ROOT.glob(pattern))
        if path.is_file()
    }


@cache
def _project() -> CodeMemory:
    name = f"cityloom-code-{os.getuid()}-{digest(str(ROOT))[:12]}.json"
    memory = CodeMemory(ROOT, PACKAGES, OPAQUE, Path(tempfile.gettempdir()) / name)
    atexit.register(memory.keep)
    return memory


# --- code ----------------------------------------------------------------------------------------

_IMPORT = "(import)"  # stands for what a module does when it is imported, beyond defining names
_Import = ast.Import | ast.ImportFrom
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class CodeMemory:
    """What `CodeGraph.digests` found, also in earlier processes: to follow all code takes seconds. It
    holds for as long as no source file of the packages changes, and for one version of Python."""

    def __init__(
        self, root: Path, packages: Iterable[str], opaque: Iterable[str], file: Path
    ) -> None:
        """Remember in `file`, which may be missing or of other code, and is written by `keep`."""
        self._make = partial(CodeGraph, root, packages, opaque)
        self._graph: CodeGraph | None = None
        self._file, self._new = file, False
        whole = hashlib.sha256(sys.version.encode())
        for source in sorted(path for name in packages for path in (root / name).rglob("*.py")):
            whole.update(f"{source.relative_to(root)}:{file_digest(source)}".encode())
        self._state = whole.hexdigest()
        self._found = self._read()

    def digests(self, roots: Iterable[str]) -> dict[str, str]:
        """See `CodeGraph.digests`."""
        names = sorted(roots)
        key = " ".join(names)
        if key not in self._found:
            self._graph = self._graph or self._make()
            self._found[key] = self._graph.digests(names)
            self._new = True
        return dict(self._found[key])

    def keep(self) -> None:
        """Write what is new, for later processes; whoever cannot write remembers nothing."""
        if not self._new:
            return
        places = sorted({place for found in self._found.values() for place in found.items()})
        number = {place: i for i, place in enumerate(places)}
        of = {key: [number[p] for p in found.items()] for key, found in self._found.items()}
        with contextlib.suppress(OSError):
            part = self._file.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps({"state": self._state, "places": places, "of": of}))
            part.replace(self._file)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            known = json.loads(self._file.read_text())
            if known["state"] != self._state:
                return {}
            places = known["places"]
            return {key: dict(places[i] for i in of) for key, of in known["of"].items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return {}


class CodeGraph:
    """The top-level names of a project's source files, and which of them each one uses.

    In doubt a dependency is followed: a result that is made once too often is no harm, one that is
    wrongly taken for up to date is. Not seen: names that are put together at run time
    (`import_module(f"{a}.{b}")`); name such a module as a root.
    """

    def __init__(self, root: Path, packages: Iterable[str], opaque: Iterable[str] = ()) -> None:
        """Follow code of `packages` below `root`; what a module of `opaque` holds is left out."""
        self._root, self._packages, self._opaque = root, frozenset(packages), frozenset(opaque)
        self._modules: dict[str, _Module | None] = {}
        self._symbols: dict[tuple[str, str, bool], tuple[str, frozenset[str]]] = {}
        self._places_of: dict[str, frozenset[tuple[str, str]]] = {}

    def digests(self, roots: Iterable[str]) -> dict[str, str]:
        """Digest of every symbol that the roots reach, by `package.module:name`.

        Args:
            roots: `package.module:name` for a function or class (its decorators declare a stage and
                do not count), `package.module` for a whole file.
        Raises:
            KeyError: a root does not exist.
            ValueError: reachable code has a star import of project code.
        """
        declared: set[tuple[str, str]] = set()
        queue: list[tuple[str, str]] = []
        for root in roots:
            module_name, _, name = root.partition(":")
            module = self._module(module_name)
            if module is None or (name and name not in module.names):
                raise KeyError(f"no such code: {root}")
            if name:
                declared.add((module_name, name))
            queue += [(module_name, n) for n in ([name] if name else [*module.names, _IMPORT])]
        found: dict[tuple[str, str], str] = {}
        while queue:
            place = queue.pop()
            if place in found:
                continue
            found[place], used = self._symbol(*place, place in declared)
            queue += [p for target in used for p in self._places(target)]
        return {f"{m}:{name}": value for (m, name), value in sorted(found.items()) if value}

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            path = self._root.joinpath(*name.split("."))
            files = [f for f in (path / "__init__.py", path.with_suffix(".py")) if f.is_file()]
            self._modules[name] = _Module(name, files[0], self._packages) if files else None
        return self._modules[name]

    def _places(self, target: str) -> frozenset[tuple[str, str]]:
        """The symbols (module, name) that a dotted target stands for."""
        if target not in self._places_of:
            self._places_of[target] = frozenset(self._looked_up(target))
        return self._places_of[target]

    def _looked_up(self, target: str) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        queue, seen = [target], {target}
        while queue:
            parts = queue.pop().split(".")
            ends = [n for n in range(len(parts), 0, -1) if self._module(".".join(parts[:n]))]
            name = ".".join(parts[: ends[0]]) if ends else ""
            module = self._module(name)
            if module is None or name in self._opaque:
                continue
            found |= {(".".join(parts[:n]), _IMPORT) for n in ends}
            if parts[-1] == _IMPORT:
                continue
            symbol, rest = parts[ends[0] : ends[0] + 1], parts[ends[0] + 1 :]
            others = [".".join([t, *rest]) for s in symbol for t in module.imports.get(s, ())]
            if symbol and symbol[0] in module.names:
                found.add((name, symbol[0]))
            elif not others:  # a module as a value, or a name made in another way: all may be used
                found |= {(name, n) for n in module.names}
                if module.is_package:
                    others = [t for targets in module.imports.values() for t in targets]
            queue += [t for t in others if t not in seen]
            seen |= set(others)
        return found

    def _symbol(self, module_name: str, name: str, root: bool) -> tuple[str, frozenset[str]]:
        """Digest of one top-level name (empty if there is nothing), and the targets it uses."""
        key = (module_name, name, root)
        if key not in self._symbols:
            module = self._module(module_name)
            assert module is not None
            nodes = module.names.get(name, [])
            if root:
                nodes = [_undecorated(n) for n in nodes]
            uses = _Uses(module, self._packages)
            if name == _IMPORT:
                nodes = module.effects
                uses.found |= {f"{other}.{_IMPORT}" for other in module.runs}
                uses.found |= {f"{module_name}.{n}" for n in self._registered(module)}
            else:
                uses.found.add(f"{module_name}.{_IMPORT}")
            for node in nodes:
                uses.visit(node)
            text = digest([ast.dump(node) for node in nodes]) if nodes else ""
            self._symbols[key] = text, frozenset(uses.found)
        return self._symbols[key]

    def _registered(self, module: _Module) -> Iterator[str]:
        """Names with a decorator of the project, which may note them in a table somewhere."""
        for name, nodes in module.names.items():
            classes = (node.body for node in nodes if isinstance(node, ast.ClassDef))
            inner = [*nodes, *(n for body in classes for n in body)]
            decorators = [d for node in inner for d in getattr(node, "decorator_list", ())]
            if any(self._followed(decorator, module) for decorator in decorators):
                yield name

    def _followed(self, decorator: ast.expr, module: _Module) -> bool:
        """Whether a decorator is, or is made from, project code that is not opaque."""
        uses = _Uses(module, self._packages)
        uses.visit(decorator.func if isinstance(decorator, ast.Call) else decorator)
        if not uses.found:  # of a library; what it is given may be the project's
            uses.visit(decorator)
        return any(name != _IMPORT for target in uses.found for _, name in self._places(target))


class _Module:
    """Top-level names of one source file, where its imports point, and what else it does."""

    def __init__(self, name: str, path: Path, packages: frozenset[str]) -> None:
        self.name = name
        self.is_package = path.name == "__init__.py"
        self.names: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, list[str]] = {}
        self.runs: list[str] = []
        self.effects: list[ast.stmt] = []
        self._packages = packages
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        self._read(_Bare().visit(tree).body)

    def _read(self, body: Iterable[ast.AST]) -> None:
        for node in body:
            if isinstance(node, _Import):
                for local, target, run in self.imported(node):
                    self.imports.setdefault(local, []).append(target)
                    self.runs.append(run)
            elif isinstance(node, ast.If):
                if not _is_name(node.test, "TYPE_CHECKING"):
                    if _is_name(getattr(node.test, "left", None), "__name__"):
                        continue  # `if __name__ == "__main__":` does nothing on import
                    self.effects.append(ast.Expr(node.test))
                    self._read(node.body)
                self._read(node.orelse)
            elif isinstance(node, ast.Try | ast.TryStar):
                self._read([*node.body, *node.orelse, *node.finalbody])
                for handler in node.handlers:
                    self._read(handler.body)
            elif isinstance(node, ast.stmt):
                self._define(node)

    def _define(self, node: ast.stmt) -> None:
        declared = [name for n in ast.walk(node) if isinstance(n, ast.Global) for name in n.names]
        for name in {*_bound(node), *declared}:
            self.names.setdefault(name, []).append(node)
        if isinstance(node, _Function | ast.ClassDef | ast.Pass):
            return
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = (ast.Name, ast.Tuple, ast.List, ast.Starred)
        plain = all(isinstance(n, names) for t in targets for n in _parts(t))
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not plain:
            self.effects.append(node)
            inner = (n for n in ast.walk(node) if isinstance(n, _Import | _Function | ast.ClassDef))
            self._read(inner)

    def imported(self, node: _Import) -> Iterator[tuple[str, str, str]]:
        """(local name, the dotted target that it stands for, what is run) of an import of project
        code."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                if top in self._packages:
                    yield alias.asname or top, alias.name if alias.asname else top, alias.name
            return
        base = node.module or ""
        if node.level:
            parent = self.name.split(".")
            parent = parent[: len(parent) - node.level + self.is_package]
            base = ".".join([*parent, *([base] if base else [])])
        if base.split(".")[0] in self._packages:
            for alias in node.names:
                if alias.name == "*":
                    raise ValueError(
                        f"{self.name}, line {node.lineno}: `from {base} import *` hides what is "
                        "used; import the names"
                    )
                target = f"{base}.{alias.name}"
                yield alias.asname or alias.name, target, target


class _Uses(ast.NodeVisitor):
    """Dotted targets of project code that a statement uses; names that are local to a function
    count as what they are there."""

    def __init__(self, module: _Module, packages: frozenset[str]) -> None:
        self.found: set[str] = set()
        self._module, self._packages = module, packages
        self._scopes: list[dict[str, list[str]]] = []  # local name -> what it imports

    def _use(self, first: str, *rest: str) -> None:
        scope = next((s for s in reversed(self._scopes) if first in s), None)
        if scope is not None:
            targets = scope[first]
        else:
            own = [f"{self._module.name}.{first}"] if first in self._module.names else []
            targets = [*self._module.imports.get(first, ()), *own]
        self.found |= {".".join([target, *rest]) for target in targets}

    def visit_Name(self, node: ast.Name) -> None:
        self._use(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        attributes: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self._use(inner.id, *reversed(attributes))
        else:
            self.visit(inner)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A text that is a dotted name, such as the argument of `import_module`."""
        if isinstance(node.value, str) and node.value.split(".")[0] in self._packages:
            name = node.value.replace(":", ".")
            if "." in name and all(part.isidentifier() for part in name.split(".")):
                self.found.add(name)

    def visit_Import(self, node: _Import) -> None:
        self.found |= {f"{run}.{_IMPORT}" for _, _, run in self._module.imported(node)}

    visit_ImportFrom = visit_Import

    def visit_FunctionDef(self, node: _Function) -> None:
        outside = (*node.decorator_list, node.returns)
        arguments = _arguments(node.args)
        self._visit_all(*outside, *_defaults(node.args), *(a.annotation for a in arguments))
        self._inside([a.arg for a in arguments], node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_all(*_defaults(node.args))
        self._inside([a.arg for a in _arguments(node.args)], [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all(*node.decorator_list, *node.bases, *node.keywords)
        # Methods do not see the names of a class body; what it imports is an attribute.
        imports = self._imports(node.body)
        self.found |= {target for targets in imports.values() for target in targets}
        self._scopes.append(imports)
        self._visit_all(*node.body)
        self._scopes.pop()

    def _visit_comprehension(self, node: _Comprehension) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        targets = [g.target for g in node.generators]
        self._scopes.append({name: [] for target in targets for name in _bound(target)})
        results = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        self._visit_all(*first.ifs, *others, *results)
        self._scopes.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension

    def _inside(self, arguments: list[str], body: Iterable[ast.AST]) -> None:
        """Visit the body of a function, in which what it binds hides what the module has."""
        body = list(body)
        scope: dict[str, list[str]] = {name: [] for name in arguments}
        scope |= {name: [] for node in body for name in _bound(node)}
        scope |= self._imports(body)
        for node in _own(body):
            if isinstance(node, ast.Global | ast.Nonlocal):
                for name in node.names:
                    scope.pop(name, None)
        self._scopes.append(scope)
        self._visit_all(*body)
        self._scopes.pop()

    def _imports(self, body: Iterable[ast.AST]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for node in _own(body):
            if isinstance(node, _Import):
                for local, target, _ in self._module.imported(node):
                    found.setdefault(local, []).append(target)
        return found

    def _visit_all(self, *nodes: ast.AST | None) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def _own(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes that belong to the scope of a body, not those of functions and classes in it."""
    for node in body:
        yield node
        if not isinstance(node, _SCOPES):
            yield from _own(ast.iter_child_nodes(node))


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a statement binds in its own scope."""
    if isinstance(node, _Function | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Name):
        if not isinstance(node.ctx, ast.Load):
            yield node.id
    elif isinstance(node, _Import):
        for alias in node.names:
            yield alias.asname or alias.name.split(".")[0]
    elif isinstance(node, _Comprehension):  # its targets are its own, except for `:=`
        for inner in _own(ast.iter_child_nodes(node)):
            if isinstance(inner, ast.NamedExpr):
                yield from _bound(inner.target)
    elif not isinstance(node, ast.Lambda):
        for name in ("name", "rest"):  # `except E as name`, `case [*name]`, `case {**rest}`
            if isinstance(value := getattr(node, name, None), str):
                yield value
        for child in ast.iter_child_nodes(node):
            yield from _bound(child)


def _arguments(args: ast.arguments) -> list[ast.arg]:
    more = [a for a in (args.vararg, args.kwarg) if a]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *more]


def _defaults(args: ast.arguments) -> list[ast.expr | None]:
    return [*args.defaults, *args.kw_defaults]


def _parts(target: ast.AST | None) -> Iterator[ast.AST | None]:
    """The targets in a target: `a, (b, *c)`."""
    if isinstance(target, ast.Tuple | ast.List | ast.Starred):
        for child in target.elts if not isinstance(target, ast.Starred) else [target.value]:
            yield from _parts(child)
    else:
        yield target


def _is_name(node: ast.AST | None, name: str) -> bool:
    return name in (getattr(node, "id", None), getattr(node, "attr", None))


def _is_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


class _Bare(ast.NodeTransformer):
    """Takes docstrings and other statements without effect out."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if _is_constant(node) else node


def _undecorated(node: ast.stmt) -> ast.stmt:
    if isinstance(node, _Function | ast.ClassDef):
        node = copy.copy(node)
        node.decorator_list = []
    return node
