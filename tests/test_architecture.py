"""The house's one rule, imports go down only; tests mirror the source; and what keeps the code
location quick to load."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from model_code.fingerprint import OPAQUE, PACKAGES, ROOT

# From the top down; a room may import from itself and from the rooms below.
ROOMS = ("pipelines", "assets", "resources", "model_code")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]

# Packages that no code location may need in order to be listed.
HEAVY = (
    "torch", "torchvision", "lightning", "open_clip", "timm", "transformers", "diffusers", "vllm",
    "mmseg", "mmcv", "sentence_transformers", "ray", "sklearn", "scipy", "matplotlib", "PIL",
    "pandas", "pyarrow", "pandera", "duckdb", "safetensors", "geopandas", "shapely", "rasterio",
    "pyproj", "h3", "h3ronpy", "gensim",
)  # fmt: skip

LOAD = f"""
import resource, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import pipelines.definitions
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime)
"""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = module.split(".")
            parent = parent[: len(parent) - node.level + is_package] if node.level else []
            yield node.lineno, ".".join([*parent, *([node.module] if node.module else [])])
        elif isinstance(node, ast.Call) and "import_module" in ast.dump(node.func):
            yield from (
                (node.lineno, arg.value)
                for arg in node.args
                if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )


def upward(tree: ast.AST, module: str, is_package: bool = False) -> list[str]:
    """Imports that the rule forbids in a module."""
    room = module.split(".")[0]
    above = ROOMS[: ROOMS.index(room)]
    found = []
    for line, name in imports(tree, module, is_package):
        top = name.split(".")[0]
        if top in above or top in ("tests", "benchmarks", "cities"):
            found.append(f"{module}, line {line}: {room} imports {name}")
        if room == "model_code" and top.startswith("dagster"):
            found.append(f"{module}, line {line}: the science knows nothing of Dagster")
    return found


def test_imports_go_down_only():
    assert len(FILES) > 60
    found = [w for p in FILES for w in upward(tree_of(p), module_of(p), p.name == "__init__.py")]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("import assets.stage", "model_code.x"),
        ("from assets import stage", "resources.lake"),
        ("def f():\n    from pipelines.jobs import JOBS", "assets.x"),
        ("if TYPE_CHECKING:\n    import resources.lake", "model_code.geo.x"),
        ("import importlib\nimportlib.import_module('assets.raw')", "resources.x"),
        ("import dagster as dg", "model_code.x"),
        ("from dagster._utils import x", "model_code.x"),
        ("from dagster_ray import x", "model_code.x"),
        ("from tests.tiny import Place", "pipelines.cli"),
    ],
)
def test_the_rule_is_told_when_it_is_broken(text, module):
    assert len(upward(ast.parse(text), module)) == 1


def test_the_rule_leaves_the_rest_alone():
    text = (
        "import dagster\nimport resources.lake\nfrom model_code import city\nfrom .stage import x"
    )
    assert not upward(ast.parse(text), "assets.raw")


def test_no_global_state_in_the_science():
    """Model code is the same whoever called it before: nothing is rebound from within functions."""
    found = [
        f"{module_of(path)}, line {node.lineno}: global {', '.join(node.names)}"
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Global) and path.is_relative_to(ROOT / "model_code")
    ]
    assert not found, "\n".join(found)


# --- what fingerprints cannot follow -------------------------------------------------------------


def hidden(tree: ast.AST) -> list[str]:
    """Ways to use code that leave no name behind, so that a change of it would go unseen."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            found.append(f"line {node.lineno}: star import")
        if isinstance(node, ast.Attribute | ast.FunctionDef):
            name = node.attr if isinstance(node, ast.Attribute) else node.name
            if name in ("__init_subclass__", "__subclasses__"):
                found.append(f"line {node.lineno}: {name}")
        if isinstance(node, ast.ClassDef) and any(k.arg == "metaclass" for k in node.keywords):
            found.append(f"line {node.lineno}: metaclass")
        if isinstance(node, ast.Name) and node.id in ("globals", "__import__"):
            found.append(f"line {node.lineno}: {node.id}")
    return found


def test_code_is_used_by_name():
    followed = [p for p in FILES if module_of(p).split(".")[0] in PACKAGES]
    found = [f"{module_of(p)}, {what}" for p in followed for what in hidden(tree_of(p))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "from a import *",
        "class A:\n    def __init_subclass__(cls): T.append(cls)",
        "A.__subclasses__()",
        "class A(metaclass=M): pass",
        "globals()['f']()",
        "__import__('a.b')",
    ],
)
def test_hidden_uses_are_found(text):
    assert len(hidden(ast.parse(text))) == 1


def test_opaque_modules_exist():
    assert set(OPAQUE) <= {module_of(path) for path in FILES}


# --- tests mirror the source ---------------------------------------------------------------------

# Modules without a test of their own: they declare, and do nothing.
DECLARING = {
    "model_code/vision/clip_config.py": "settings; test_clip trains by them",
    "model_code/hours.py": "one number",
}
# A package's own code is tested under the name of what it is; implementations of one protocol, which
# must pass one contract, are tested in one file.
MIRROR_OF = {
    "model_code/methods/__init__.py": "tests/model_code/methods/test_registry.py",
    "model_code/graphs/layers.py": "tests/model_code/graphs/test_autoencoder.py",
    "resources/captioners/server.py": "tests/resources/test_captioners.py",
    **{
        f"resources/captioners/{name}.py": "tests/resources/test_captioner_contract.py"
        for name in ("batches", "custom", "hugging_face", "identity", "tries", "vllm_engine")
    },
    **{
        f"model_code/methods/baselines/{name}.py": "tests/model_code/methods/baselines/test_hourly.py"
        for name in (
            *("hourly_cnn", "hourly_forest", "hourly_linear", "hourly_lstm", "hourly_net"),
            *("hourly_transformer", "lmemr_clip"),
        )
    },
}


def does_nothing(tree: ast.Module) -> bool:
    """Whether a module holds declarations alone: no function in it has a body."""
    return not any(
        not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for line in (node.body if isinstance(node.body, list) else [node.body])
    )


def mirror(module: str) -> str:
    """Where the tests of a module stand: tests/<its folder>/test_<its name>."""
    path = Path(module)
    return MIRROR_OF.get(module, (Path("tests") / path.parent / f"test_{path.name}").as_posix())


def without_tests(root: Path) -> list[str]:
    """Modules that should have tests under their name, and have not."""
    found = []
    rooms = (*ROOMS, "benchmarks")
    for path in sorted(path for room in rooms for path in (root / room).rglob("*.py")):
        module = path.relative_to(root).as_posix()
        tests = root / mirror(module)
        tested = tests.exists() and "def test_" in tests.read_text(encoding="utf-8")
        empty = path.name == "__init__.py" and does_nothing(tree_of(path))
        if not (tested or empty or module in DECLARING):
            found.append(f"{module}: no {mirror(module)}")
    return found


def test_each_module_has_its_tests_under_its_name():
    assert not (missing := without_tests(ROOT)), "\n".join(missing)


def test_what_needs_no_test_only_declares():
    for module in DECLARING:
        assert does_nothing(tree_of(ROOT / module)), module
        assert not (ROOT / mirror(module)).exists(), f"{module} has tests: take it off the list"


def test_a_module_without_tests_is_found(tmp_path):
    names = ("assets/__init__.py", "assets/new.py", "assets/old.py", "model_code/__init__.py")
    for name in (*names, "benchmarks/new.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("def f():\n    return 1\n" if "new" in name else "X = 1\n")
    (tmp_path / "tests" / "assets").mkdir(parents=True)
    (tmp_path / "tests" / "assets" / "test_old.py").write_text("def test_old(): assert f() == 1\n")
    assert without_tests(tmp_path) == [
        "assets/new.py: no tests/assets/test_new.py",
        "benchmarks/new.py: no tests/benchmarks/test_new.py",
    ]
    (tmp_path / "tests" / "assets" / "test_new.py").write_text("# nothing yet\n")
    (tmp_path / "model_code" / "__init__.py").write_text("def f():\n    return 1\n")
    tree_of.cache_clear()
    assert [line.split(":")[0] for line in without_tests(tmp_path)] == [
        "assets/new.py",
        "benchmarks/new.py",
        "model_code/__init__.py",
    ]


@pytest.mark.parametrize(
    ("text", "declares"),
    [
        ("class P(Protocol):\n    def f(self): ...", True),
        ('class P(Protocol):\n    def f(self):\n        """What it does."""', True),
        ("class A:\n    def f(self):\n        return 1", False),
        ("f = lambda x: x + 1", False),
        ("LIMIT = 3", True),
    ],
)
def test_a_declaration_is_told_from_code(text, declares):
    assert does_nothing(ast.parse(text)) == declares


# --- loading -------------------------------------------------------------------------------------


def test_the_code_location_loads_quickly_and_needs_nothing_heavy():
    """Processor time, since the machine may be busy with something else; coverage takes its own."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD], cwd=ROOT, capture_output=True, text=True,
        check=False, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 5


def test_the_block_works():
    code = LOAD.replace("import pipelines.definitions", "import pandas.api")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and re.search("blocked: pandas", done.stderr)
