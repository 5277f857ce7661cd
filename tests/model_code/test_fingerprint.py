"""Code is followed through a small project that each test writes. The worst error is a dependency
that is missed, since an old result is then taken for up to date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code import fingerprint
from model_code.fingerprint import (
    CodeGraph,
    CodeMemory,
    code_digests,
    data_digests,
    digest,
    file_digest,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Project:
    """Source files of a package `app` below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("app/__init__.py", "")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def digests(self, *roots: str, opaque: tuple[str, ...] = ()) -> dict[str, str]:
        return CodeGraph(self.root, ["app"], opaque).digests(roots or ["app.main:run"])

    def changes(self, path: str, text: str, *roots: str, opaque: tuple[str, ...] = ()) -> set[str]:
        """The symbols whose digest differs once a file has another text."""
        before = self.digests(*roots, opaque=opaque)
        self.write(path, text)
        after = self.digests(*roots, opaque=opaque)
        return {key for key in {*before, *after} if before.get(key) != after.get(key)}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# --- values --------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_a_digest_is_that_of_the_value(value):
    again = json.loads(json.dumps(value))
    assert digest(again) == digest(value)


def test_a_digest_does_not_heed_the_order_of_keys_but_that_of_lists():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1, "b": [1, 2]}) != digest({"a": 1, "b": [2, 1]})
    assert digest(["1"]) != digest([1])


def test_files_are_known_by_their_content(tmp_path, monkeypatch):
    (tmp_path / "templates").mkdir()
    for name, content in (("b.html", b"two"), ("a.html", b"one"), ("c.txt", b"one")):
        (tmp_path / "templates" / name).write_bytes(content)
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    found = data_digests("templates/*.html")
    assert list(found) == ["templates/a.html", "templates/b.html"]
    assert found["templates/a.html"] == file_digest(tmp_path / "templates" / "c.txt")
    assert len(set(found.values())) == 2


# --- what is followed ----------------------------------------------------------------------------

# Each: what `app/main.py` says; `app/used.py` holds `target`, whose value then changes.
WAYS = {
    "a function": "from app.used import target\ndef run(): return target()",
    "another name": "from app.used import target as t\ndef run(): return t()",
    "a module's attribute": "from app import used\ndef run(): return used.target()",
    "a dotted module": "import app.used\ndef run(): return app.used.target()",
    "a module's other name": "import app.used as u\ndef run(): return u.target()",
    "a relative import": "from .used import target\ndef run(): return target()",
    "a relative module": "from . import used\ndef run(): return used.target()",
    "an import in a function": "def run():\n    from app.used import target\n    return target()",
    "a module in a function": "def run():\n    import app.used as u\n    return u.target()",
    "a dotted module in a function": "def run():\n    import app.used\n    return app.used.target()",
    "an import in a class": "class run:\n    from app.used import target",
    "an import in a method": "class run:\n    def f(self):\n        from app.used import target\n        target()",
    "an inner function": (
        "def run():\n    from app.used import target\n    def inner():\n        return target()\n"
        "    return inner"
    ),
    "a function of the module": "from app.used import target\ndef helper(): return target()\ndef run(): return helper()",
    "a constant": "from app.used import target\nX = [target]\ndef run(): return X",
    "a chain of constants": "from app.used import target\nX = target\nY = (X, 1)\ndef run(): return Y",
    "a table of functions": "from app.used import target\nTABLE = {'a': target}\ndef run(k): return TABLE[k]()",
    "a value": "from functools import partial\nfrom app.used import target\ndef run(): return map(partial(target), [])",
    "a default": "from app.used import target\ndef run(x=target()): return x",
    "a keyword's default": "from app.used import target\ndef run(*, x=target): return x",
    "a lambda": "from app.used import target\nf = lambda: target()\ndef run(): return f()",
    "a lambda's default": "from app.used import target\ndef run(): return lambda x=target: x",
    "a comprehension": "from app.used import target\ndef run(): return [target(x) for x in ()]",
    "a comprehension's source": "from app.used import target\ndef run(): return {x: 1 for x in target()}",
    "a nested source": "from app.used import target\ndef run(): return [y for x in () for y in target(x)]",
    "a condition": "from app.used import target\ndef run(): return (x for x in () if target(x))",
    "a base class": "from app.used import target\nclass run(target): pass",
    "a class attribute": "from app.used import target\nclass run:\n    f = target",
    "a method": "from app.used import target\nclass run:\n    def f(self): return target()",
    "a property": "from app.used import target\nclass run:\n    @property\n    def f(self): return target()",
    "an annotation of a class": "from app.used import target\nclass run:\n    x: target",
    "an annotation": "from app.used import target\ndef run(x: target): return x",
    "what it returns": "from app.used import target\ndef run() -> target: ...",
    "an instance": "from app.used import target\nMADE = target()\ndef run(): return MADE.method()",
    "a decorator of a helper": "from app.used import target\n@target\ndef helper(): pass\ndef run(): return helper()",
    "a decorator of a method": "from app.used import target\nclass run:\n    @target\n    def f(self): pass",
    "a decorator in a function": "from app.used import target\ndef run():\n    @target\n    def f(): pass\n    return f",
    "f-strings": "from app.used import target\ndef run(): return f'{target():>{target}}'",
    "a context": "from app.used import target\ndef run():\n    with target() as t: return t",
    "an assignment expression": "from app.used import target\ndef run(): return (t := target)",
    "an asynchronous function": "from app.used import target\nasync def run(): return await target()",
    "an attempt": "try:\n    from app.used import target\nexcept ImportError:\n    target = None\ndef run(): return target()",
    "a second attempt": "try:\n    from app.fast import target\nexcept ImportError:\n    from app.used import target\ndef run(): return target()",
    "a condition of the module": "import sys\nif sys.version_info > (3, 12):\n    from app.used import target\nelse:\n    target = 1\ndef run(): return target()",
    "not only for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    x = 1\nelse:\n    from app.used import target\ndef run(): return target()",
    "a name imported twice in a function": (
        "def run(x):\n    if x:\n        from app.used import target as t\n    else:\n"
        "        from app.other import f as t\n    return t()"
    ),
    "a name that is also a local elsewhere": (
        "from app.used import target\ndef other(target): return target\ndef run(): return target()"
    ),
    "a global of a function": "from app.used import target\nX = None\ndef fill():\n    global X\n    X = target()\ndef run(): return X",
    "a global that is assigned nowhere else": "from app.used import target\ndef fill():\n    global X\n    X = target()\ndef run(): return X",
    "several targets": "from app.used import target\na, (b, *c) = target()\ndef run(): return c",
    "a loop of the module": "from app.used import target\nfor last in target(): pass\ndef run(): return last",
    "a context of the module": "from app.used import target\nwith target() as made: pass\ndef run(): return made",
    "a match": "from app.used import target\ndef run(x):\n    match x:\n        case target.Kind: return 1",
    "a chosen attribute": "from app import used\ndef run(n): return getattr(used, n)",
    "a module that is handed on": "import app.used\ndef run(): return [app.used]",
    "a module under a new name": "from app import used\nu = used\ndef run(): return u.target",
    "a module's name as text": "import importlib\ndef run(): return importlib.import_module('app.used')",
    "a function's name as text": "PLACE = 'app.used:target'\ndef run(): return PLACE",
    "a table filled item by item": "from app.used import target\nT = {}\nT['a'] = target\ndef run(): return T",
    "a table filled by a call": "from app.used import target\nT = []\nT.append(target)\ndef run(): return T",
    "a table filled in a loop": "from app.used import target\nT = {}\nfor k in 'ab':\n    T[k] = target\ndef run(): return T",
    "a table that grows": "from app.used import target\nT = S = []\nS += [target]\ndef run(): return T",
    "an attribute set later": "from app.used import target\nclass C: pass\nC.f = target\ndef run(): return C",
    "a registry": (
        "from app.used import target\nT = {}\ndef register(f):\n    T[f.__name__] = f\n    return f\n"
        "@register\ndef a(): return target()\ndef run(k): return T[k]()"
    ),
    "a registry with arguments": (
        "from app.used import target\nT = {}\ndef register(name):\n    return lambda f: T.setdefault(name, f)\n"
        "@register('a')\ndef a(): return target()\ndef run(k): return T[k]()"
    ),
    "a registry of classes": (
        "from app.used import target\nT = []\ndef register(c):\n    T.append(c)\n    return c\n"
        "@register\nclass A:\n    def f(self): return target()\ndef run(k): return T"
    ),
    "a registry of methods": (
        "from app.used import target\nT = []\ndef register(c):\n    T.append(c)\n    return c\n"
        "class A:\n    @register\n    def f(self): return target()\ndef run(k): return T"
    ),
    "a dispatch by type": (
        "from functools import singledispatch\nfrom app.used import target\n@singledispatch\n"
        "def run(x): return x\n@run.register\ndef _(x: int): return target()"
    ),
    "a setting of a library": "import numpy as np\nfrom app.used import target\nnp.seterr(**target())\ndef run(): return np",
    "a statement after the definitions": "from app.used import target\ndef run(): return 1\nrun.limit = target",
}  # fmt: skip


@pytest.mark.parametrize("text", WAYS.values(), ids=list(WAYS))
def test_every_way_to_use_something_is_followed(project, text):
    project.write("app/main.py", text)
    project.write("app/used.py", "class target:\n    Kind = 1\n")
    project.write("app/other.py", "def f(): pass\n")
    changed = project.changes("app/used.py", "class target:\n    Kind = 2\n")
    assert changed == {"app.used:target"}


def test_two_modules_away(project):
    project.write("app/main.py", "from app.near import helper\ndef run(): return helper()")
    project.write("app/near.py", "from app.far import LIMIT as L\ndef helper(): return [L]")
    project.write("app/far.py", "LIMIT = 3")
    assert project.changes("app/far.py", "LIMIT = 4") == {"app.far:LIMIT"}


def test_what_a_package_exports_again(project):
    project.write("app/main.py", "from app.deep import f, inner\ndef run(): return f(), inner.g()")
    project.write("app/deep/__init__.py", "from .a import f\nfrom . import b as inner")
    project.write("app/deep/a.py", "def f(): return 1")
    project.write("app/deep/b.py", "def g(): return 1\ndef unused(): return 1")
    assert project.changes("app/deep/a.py", "def f(): return 2") == {"app.deep.a:f"}
    text = "def g(): return 2\ndef unused(): return 1"
    assert project.changes("app/deep/b.py", text) == {"app.deep.b:g"}
    assert not project.changes("app/deep/b.py", text.replace("unused(): return 1", "unused(): 2"))


def test_a_module_is_found_through_another_one(project):
    project.write("app/main.py", "from app import middle\ndef run(): return middle.deep.used.f()")
    project.write("app/middle.py", "from app import deep")
    project.write("app/deep/__init__.py", "from app.deep import used")
    project.write("app/deep/used.py", "def f(): return 1")
    assert project.changes("app/deep/used.py", "def f(): return 2") == {"app.deep.used:f"}


def test_a_package_may_import_itself(project):
    project.write("app/main.py", "import app.loop\ndef run(): return app.loop")
    project.write("app/loop/__init__.py", "import app.loop\nfrom app.loop import a\nX = 1")
    project.write("app/loop/a.py", "from app.loop import X\ndef f(): return X")
    assert project.changes("app/loop/a.py", "def f(): return 2") == {"app.loop.a:f"}


def test_names_that_a_module_makes_when_asked(project):
    project.write("app/main.py", "from app.lazy import thing\ndef run(): return thing")
    project.write("app/lazy.py", "def __getattr__(name): return 1")
    text = "def __getattr__(name): return 2"
    assert project.changes("app/lazy.py", text) == {"app.lazy:__getattr__"}


def test_what_an_import_does_counts_without_a_name(project):
    project.write(
        "app/main.py", "from app.table import TABLE\nimport app.plugins\ndef run(): return TABLE"
    )
    project.write("app/table.py", "TABLE = {}\ndef register(f):\n    TABLE[f] = f\n    return f")
    plugin = "from app.table import register\n@register\ndef plugin(): return {}\n"
    project.write("app/plugins/__init__.py", "from app.plugins import one")
    project.write("app/plugins/one.py", plugin.format(1))
    assert project.changes("app/plugins/one.py", plugin.format(2)) == {"app.plugins.one:plugin"}


def test_statements_of_a_module_and_of_its_packages(project):
    project.write("app/main.py", "from app.deep.used import f\ndef run(): return f()")
    project.write(
        "app/deep/used.py", "import numpy as np\nnp.seterr(all='raise')\ndef f(): return 1"
    )
    project.write("app/deep/__init__.py", "import os\nos.environ['A'] = '1'")
    text = "import numpy as np\nnp.seterr(all='warn')\ndef f(): return 1"
    assert project.changes("app/deep/used.py", text) == {"app.deep.used:(import)"}
    text = "import os\nos.environ['A'] = '2'"
    assert project.changes("app/deep/__init__.py", text) == {"app.deep:(import)"}


def test_a_condition_that_chooses_a_definition(project):
    text = "import sys\nif sys.platform == '{}':\n    def run(): return 1\nelse:\n    def run(): return 2"
    project.write("app/main.py", text.format("linux"))
    assert project.changes("app/main.py", text.format("darwin")) == {"app.main:(import)"}


def test_both_sides_of_a_condition_count(project):
    text = "try:\n    import numpy\n    def run(): return 1\nexcept ImportError:\n    def run(): return {}"
    project.write("app/main.py", text.format(2))
    assert project.changes("app/main.py", text.format(3)) == {"app.main:run"}


# --- what does not count -------------------------------------------------------------------------


def test_comments_docstrings_and_formatting_do_not_count(project):
    project.write(
        "app/main.py",
        '"""Module."""\nX = (1, 2)\nclass C:\n    """Class."""\n    a: int = 1\n    """Attribute."""\n'
        'def run(x):\n    """Function."""\n    # comment\n    return "a", C, X\n',
    )
    other = (
        'X = (1,\n     2)  # two\n"""Of X."""\nclass C:\n    a: int = 1\n\n\n'
        "def run(\n    x,\n):\n    '''Other.'''\n    return 'a', C, X\n"
    )
    assert not project.changes("app/main.py", other)


@pytest.mark.parametrize(
    "other",
    [
        "def run(x):\n    return X[1]",
        "def run(x=1):\n    return X[0]",
        "def run(y):\n    return X[0]",
    ],
)
def test_everything_else_of_a_function_counts(project, other):
    project.write("app/main.py", "X = (1, 2)\ndef run(x):\n    return X[0]")
    assert project.changes("app/main.py", f"X = (1, 2)\n{other}") == {"app.main:run"}


def test_what_is_not_used_does_not_count(project):
    main = (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
        "from app import used\nfrom app.used import b\nif TYPE_CHECKING:\n    from app.used import c\n"
        "def helper(): return {0}\ndef other(): return b, {0}\nTABLE = [{0}]\n"
        "if __name__ == '__main__':\n    print({0})\n"
        "def run(x: c): return used.a()\n"
    )
    project.write("app/main.py", main.format(1))
    project.write("app/used.py", "def a(): return 0\ndef b(): return 1\ndef c(): return 1")
    assert set(project.digests()) == {"app.main:run", "app.used:a"}
    assert not project.changes("app/main.py", main.format(2))
    assert not project.changes("app/used.py", "def a(): return 0\ndef b(): return 2\ndef c(): 3")


@pytest.mark.parametrize(
    "body",
    [
        "def run(helper): return helper",
        "def run(*helper): return helper",
        "def run():\n    for helper in (): helper()",
        "def run():\n    helper = 1\n    return lambda: helper",
        "def run(): return [helper for helper in ()]",
        "def run(): return lambda helper: helper",
        "def run():\n    import numpy as helper\n    return helper",
        "def run():\n    try: pass\n    except ValueError as helper: print(helper)",
        "def run():\n    def helper(): pass\n    return helper()",
        "def run(x):\n    match x:\n        case [helper, *rest]: return helper",
    ],
)
def test_a_local_name_is_no_name_of_the_module(project, body):
    project.write("app/main.py", f"def helper(): pass\n{body}")
    assert set(project.digests()) == {"app.main:run"}


@pytest.mark.parametrize(
    "body",
    [
        "def run():\n    global helper\n    helper = 1",
        "class run:\n    def helper(self): return helper()",
        "class run:\n    helper = helper",
        "def run():\n    def inner(helper): return helper\n    return helper()",
        "def run(): return [helper for helper in helper()]",
        "def run():\n    [helper for helper in ()]\n    return helper()",
    ],
)
def test_a_name_of_the_module_may_look_local(project, body):
    project.write("app/main.py", f"def helper(): pass\n{body}")
    assert "app.main:helper" in project.digests()


def test_code_outside_the_packages_does_not_count(project):
    project.write("app/main.py", "import lib\nfrom lib import f\ndef run(): return lib.f(), f()")
    project.write("lib.py", "def f(): return 1")
    assert set(project.digests()) == {"app.main:run"}


def test_opaque_modules_are_not_entered(project):
    project.write(
        "app/main.py",
        "from app.opaque import f, stage\n@stage\ndef other(): return 1\ndef run(): return f()",
    )
    project.write(
        "app/opaque.py",
        "import app.hidden\napp.hidden.start()\ndef f(): return 1\ndef stage(f): return f",
    )
    project.write("app/hidden.py", "def start(): pass")
    assert set(project.digests(opaque=("app.opaque",))) == {"app.main:run"}
    # the decorator of an opaque module declares; any other one may keep a table
    assert "app.main:other" in project.digests()
    # named by itself, an opaque function counts
    assert "app.opaque:f" in project.digests("app.opaque:f", opaque=("app.opaque",))


# --- roots ---------------------------------------------------------------------------------------


def test_decorators_of_a_root_declare_and_do_not_count(project):
    text = "from app.used import stage\n@stage(group={!r})\ndef run():\n    return 1\n"
    project.write("app/main.py", text.format("a"))
    project.write("app/used.py", "def stage(group): return lambda f: f")
    opaque = ("app.used",)
    assert not project.changes("app/main.py", text.format("b"), opaque=opaque)
    # a whole file as root declares nothing: there they count
    project.write("app/main.py", text.format("a"))
    assert project.changes("app/main.py", text.format("b"), "app.main", opaque=opaque)


def test_decorators_below_a_root_count(project):
    for text in (
        "def run():\n    @cache({})\n    def inner(): pass\n    return inner",
        "class run:\n    @cache({})\n    def method(self): pass",
    ):
        project.write("app/main.py", text.format(1))
        assert project.changes("app/main.py", text.format(2)) == {"app.main:run"}


def test_the_order_of_roots_does_not_matter(project):
    project.write("app/main.py", "@note\ndef one(): return 1\n@note\ndef run(): return one()")
    one, run = "app.main:one", "app.main:run"
    assert project.digests(one, run) == project.digests(run, one)
    assert list(project.digests(run, one)) == [one, run]


def test_a_whole_file_as_root(project):
    project.write("app/main.py", "from app.used import f\nX = 1\ndef a(): return f()\nprint(X)")
    project.write("app/used.py", "def f(): pass\ndef g(): pass")
    assert set(project.digests("app.main")) == {
        "app.main:(import)", "app.main:X", "app.main:a", "app.used:f",
    }  # fmt: skip


@pytest.mark.parametrize("root", ["app.none", "app.main:none", "app.none:run", "other.main:run"])
def test_an_unknown_root_is_an_error(project, root):
    project.write("app/main.py", "def run(): pass")
    with pytest.raises(KeyError, match="no such code"):
        project.digests(root)


@pytest.mark.parametrize("line", ["from app.used import *", "from .used import *"])
def test_star_imports_are_refused(project, line):
    project.write("app/main.py", f"{line}\ndef run(): return target()")
    project.write("app/used.py", "def target(): pass")
    with pytest.raises(ValueError, match=r"app.main, line 1: `from app.used import \*`"):
        project.digests()


def test_star_imports_of_libraries_are_not_followed_anyway(project):
    project.write("app/main.py", "from math import *\ndef run(): return sin(1)")
    assert set(project.digests()) == {"app.main:run"}


def test_a_package_wins_over_a_file_of_the_same_name(project):
    project.write("app/main.py", "from app.used import f\ndef run(): return f()")
    project.write("app/used.py", "def f(): return 1")
    project.write("app/used/__init__.py", "def f(): return 2")
    assert project.changes("app/used/__init__.py", "def f(): return 3") == {"app.used:f"}


# --- this project --------------------------------------------------------------------------------


def test_stages_reach_what_they_call_and_no_other_stage():
    found = code_digests(["assets.raw:boundary"])
    assert {"assets.raw:boundary", "model_code.geo.regions:make_boundary"} <= set(found)
    assert "model_code.city:Boundary" in found and "model_code.geo.vector:read_geo" in found
    assert not [
        name for name in found if name.startswith("assets.") and name != "assets.raw:boundary"
    ]
    assert not [name for name in found if name.startswith(fingerprint.OPAQUE)]


def test_a_method_reaches_its_network_and_the_training_loop():
    found = code_digests(["model_code.methods.baselines.vit"])
    assert {"model_code.methods.baselines.vit:METHOD", "model_code.training_loop:run"} <= set(found)


# --- remembered ----------------------------------------------------------------------------------


def test_what_an_earlier_process_found_is_taken_until_a_source_changes(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("app/main.py", "from app.used import target\ndef run(): return target\n")
    project.write("app/used.py", "target = 1\n")
    file = tmp_path / "memory.json"

    def memory() -> CodeMemory:
        return CodeMemory(tmp_path, ["app"], (), file)

    first = memory()
    found = first.digests(["app.main:run"])
    assert found == project.digests("app.main:run")
    first.digests(["app.used"])
    first.keep()

    with monkeypatch.context() as patch:
        patch.setattr(CodeGraph, "digests", lambda *_: pytest.fail("the code was followed again"))
        again = memory()
        assert again.digests(["app.main:run"]) == found
        again.digests(["app.main:run"]).clear()  # a copy: nothing that is remembered
        assert again.digests(["app.main:run"]) == found

    project.write("app/used.py", "target = 2\n")
    other = memory().digests(["app.main:run"])
    assert other == project.digests("app.main:run") != found


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"state": 1}', '{"places": 3}'])
def test_a_memory_that_is_damaged_or_cannot_be_written_is_none(
    project: Project, tmp_path: Path, text: str
) -> None:
    project.write("app/main.py", "def run(): return 1\n")
    file = tmp_path / "memory.json"
    file.write_text(text)
    memory = CodeMemory(tmp_path, ["app"], (), file)
    assert memory.digests(["app.main:run"]) == project.digests("app.main:run")
    memory.keep()
    assert json.loads(file.read_text())["of"]
    lost = CodeMemory(tmp_path, ["app"], (), tmp_path / "nowhere" / "memory.json")
    lost.digests(["app.main"])
    lost.keep()
    assert not (tmp_path / "nowhere").exists()
