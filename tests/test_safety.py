"""Nothing here runs what a file says: no pickle, no unsafe loads, no eval, no shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("pipelines", "assets", "resources", "model_code", "benchmarks", "cities")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

PICKLES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
# Methods and functions that read pickles, by their last name; with `weights_only=True` some do not.
UNPICKLING = ("read_pickle", "to_pickle")
UNPICKLING_UNLESS_TOLD = ("torch.load", "load_from_checkpoint", "load_state_dict_from_url")
# What reads pickles with `load`: gensim's classes, by whatever name they come.
GENSIM = ("KeyedVectors", "Word2Vec", "Doc2Vec", "FastText", "SaveLoad")
SAFE_YAML = ("SafeLoader", "CSafeLoader")
RUNNING = ("eval", "exec", "compile", "__import__")
# Code in a string, or in a file that says it is a model.
RUNNING_OF = (
    "pandas.eval",
    "numexpr.evaluate",
    "torch.hub.load",
    "torch.jit.load",
    "runpy.run_path",
)
# What asks at the terminal whether to run a model's code, unless it is told. (diffusers does not.)
FETCHING = ("from_pretrained", "HFTokenizer", "SentenceTransformer")
SHELLS = (
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"),
    *("asyncio.create_subprocess_shell", "asyncio.subprocess.create_subprocess_shell"),
)
PROCESSES = ("os.spawn", "os.exec", "os.posix_spawn")
# Guarded by how they are called, so that they may not be handed on as a value.
CALLED_ONLY = ("torch.load", "numpy.load", "yaml.load", "yaml.load_all", *RUNNING_OF, *SHELLS)


class Guard(ast.NodeVisitor):
    """Collects what is unsafe in a module."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[tuple[int, str]] = []
        self._names: dict[str, str] = {}  # local name -> what it is imported from
        self._loaders = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            and any(_last(ast.unparse(base)) in SAFE_YAML for base in node.bases)
        } | set(SAFE_YAML)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._names |= {a.asname or a.name.split(".")[0]: a.name if a.asname else
                                a.name.split(".")[0] for a in node.names}  # fmt: skip
            elif isinstance(node, ast.ImportFrom) and node.module:
                self._names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        self.visit(tree)

    def _say(self, node: ast.expr | ast.stmt | ast.excepthandler, what: str) -> None:
        self.found.append((node.lineno, what))

    def _dotted(self, node: ast.expr) -> str:
        """`np.load` as `numpy.load`; something else by its last attribute."""
        if isinstance(node, ast.Attribute):
            return f"{self._dotted(node.value)}.{node.attr}"
        return self._names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._check_module(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if [alias.name for alias in node.names] == ["UnpicklingError"]:  # what torch.load raises
            return
        self._check_module(node, node.module or "")
        for alias in node.names:
            if alias.name in PICKLES:
                self._say(node, f"import of {alias.name}")

    def _check_module(self, node: ast.stmt, module: str) -> None:
        if module.split(".")[0] in (*PICKLES, "builtins"):  # whose names need no import
            self._say(node, f"import of {module}")

    def visit_Name(self, node: ast.Name) -> None:
        self._check_running(node)
        self._check_value(node)

    def _check_running(self, node: ast.Name) -> None:
        own = node.id not in self._names  # and not, say, `compile` of `re`
        if isinstance(node.ctx, ast.Load) and own and node.id in (*RUNNING, "__builtins__"):
            self._say(node, node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._check_value(node)
        self.generic_visit(node)

    def _check_value(self, node: ast.expr) -> None:
        name = self._dotted(node)
        if name in CALLED_ONLY or _last(name) in UNPICKLING or name.startswith(PROCESSES):
            self._say(node, f"{name} as a value")

    def visit_Constant(self, node: ast.Constant) -> None:
        if node.value in PICKLES:  # `import_module("pickle")`, `read(..., engine="pickle")`
            self._say(node, f"name of {node.value}")

    def visit_Call(self, node: ast.Call) -> None:
        name = self._dotted(node.func)
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        asked = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
        if name == "getattr" and asked and asked[0] in RUNNING:
            self._say(node, f"getattr(..., {asked[0]!r})")
        if name in (*RUNNING_OF, *SHELLS) or name.startswith(PROCESSES):
            self._say(node, f"{name}()")
        if _last(name) in UNPICKLING or _last(name) == "subprocess_shell":
            self._say(node, f"{name}()")
        if _last(name) == "load" and _last(name.removesuffix(".load")) in GENSIM:
            self._say(node, f"{name}()")
        told = name in UNPICKLING_UNLESS_TOLD or _last(name) in UNPICKLING_UNLESS_TOLD
        if told and not _is(given.get("weights_only"), True):
            self._say(node, f"{name}() without weights_only=True")
        if name == "numpy.load" and not _is(given.get("allow_pickle"), False):
            self._say(node, "numpy.load() without allow_pickle=False")
        fetching = _last(name) in FETCHING and not name.startswith("diffusers.")
        if fetching and not _is(given.get("trust_remote_code"), False):
            self._say(node, f"{_last(name)}() without trust_remote_code=False")
        if name.startswith("yaml."):
            self._check_yaml(node, _last(name), given)
        if isinstance(node.func, ast.Name):  # what is called is judged by how, above
            self._check_running(node.func)
        else:
            inner = node.func.value if isinstance(node.func, ast.Attribute) else node.func
            self.visit(inner)
        for part in (*node.args, *node.keywords):
            self.visit(part)

    def _check_yaml(self, node: ast.Call, name: str, given: dict[str | None, ast.expr]) -> None:
        if name in ("unsafe_load", "full_load", "unsafe_load_all", "full_load_all"):
            self._say(node, f"yaml.{name}()")
        if name in ("load", "load_all"):
            loader = given.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
            if loader is None or _last(ast.unparse(loader)) not in self._loaders:
                self._say(node, f"yaml.{name}() without a safe loader")

    def visit_keyword(self, node: ast.keyword) -> None:
        unsafe = ("shell", "trust_remote_code", "allow_pickle", "use_safetensors")
        if node.arg in unsafe[:3] and not _is(node.value, False):
            self._say(node.value, f"{node.arg} that is not False")
        if node.arg == "weights_only" and not _is(node.value, True):
            self._say(node.value, "weights_only that is not True")
        if node.arg == "use_safetensors" and not _is(node.value, True):
            self._say(node.value, "use_safetensors that is not True")
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            named = isinstance(key, ast.Constant) and key.value in ("trust_remote_code", "shell")
            if named and not _is(value, False):
                self._say(value, f"{ast.unparse(key)} that is not False")
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        caught = "" if node.type is None else ast.unparse(node.type)
        silent = all(isinstance(n, ast.Pass | ast.Continue) or _is_text(n) for n in node.body)
        if node.type is None and not any(isinstance(n, ast.Raise) for n in node.body):
            self._say(node, "except without a type")
        elif silent and caught in ("Exception", "BaseException"):
            self._say(node, f"except {caught} that says nothing")
        self.generic_visit(node)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def unsafe(text: str) -> list[tuple[int, str]]:
    return Guard(ast.parse(text)).found


def walk() -> Iterator[str]:
    for path in FILES:
        for line, what in unsafe(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(ROOT)}, line {line}: {what}"


def test_nothing_unsafe_is_in_the_code():
    assert len(FILES) > 70
    found = list(walk())
    assert not found, "\n".join(found)


UNSAFE = [
    "import pickle",
    "import pickle as p",
    "from pickle import loads",
    "from pickle import UnpicklingError, loads",
    "from six.moves import cPickle",
    "import dill",
    "import cloudpickle",
    "import joblib",
    "from joblib import load",
    "import shelve",
    "import importlib\nimportlib.import_module('pickle')",
    "import pandas as pd\npd.read_pickle('x')",
    "frame.to_pickle('x')",
    "import torch\ntorch.load('x')",
    "import torch\ntorch.load('x', weights_only=False)",
    "import torch\ntorch.load('x', weights_only=safe)",
    "import torch as t\nt.load('x')",
    "from torch import load\nload('x')",
    "from torch import load as read\nread('x')",
    "import numpy as np\nnp.load('x')",
    "import numpy\nnumpy.load('x', mmap_mode='r')",
    "from numpy import load\nload('x')",
    "import numpy as np\nnp.load('x', allow_pickle=True)",
    "import numpy as np\nnp.save('x', y, allow_pickle=flag)",
    "eval('1')",
    "exec('1')",
    "e = eval\ne('1')",
    "run(exec, '1')",
    "import builtins\nbuiltins.eval('1')",
    "from builtins import eval as e\ne('1')",
    "getattr(__builtins__, 'eval')('1')",
    "__builtins__['eval']('1')",
    "getattr(module, 'exec')('1')",
    "import pandas as pd\npd.eval('1')",
    "import numexpr\nnumexpr.evaluate('1')",
    "import runpy\nrunpy.run_path('x.py')",
    "import torch\ntorch.hub.load('owner/name', 'model')",
    "from torch.hub import load\nload('owner/name', 'model')",
    "import torch\ntorch.hub.load_state_dict_from_url('x')",
    "import torch\ntorch.jit.load('x')",
    "from torch import jit\njit.load('x')",
    "from gensim.models import KeyedVectors\nKeyedVectors.load('x')",
    "import gensim\ngensim.models.Word2Vec.load('x')",
    "Model.load_from_checkpoint('x')",
    "import torch\nread = torch.load\nread('x')",
    "from numpy import load\nread = partial(load, allow_pickle=flag)",
    "import pandas\nread = pandas.read_pickle",
    "import os\nrun(os.system, 'ls')",
    "import os\nrun = os.execvp",
    "import asyncio\nasyncio.create_subprocess_shell('ls')",
    "from asyncio import create_subprocess_shell as shell\nshell('ls')",
    "loop.subprocess_shell(Protocol, 'ls')",
    "import pty\npty.spawn('ls')",
    "__import__('os')",
    "compile('1', '', 'eval')",
    "import subprocess\nsubprocess.run('ls', shell=True)",
    "import subprocess\nsubprocess.Popen('ls', shell=flag)",
    "options = {'shell': True}",
    "import os\nos.system('ls')",
    "from os import popen\npopen('ls')",
    "import os\nos.execvp('ls', [])",
    "import subprocess as s\ns.getoutput('ls')",
    "model.from_pretrained('x', trust_remote_code=True)",
    "model.from_pretrained('x', trust_remote_code=flag)",
    "from transformers import AutoConfig\nAutoConfig.from_pretrained('x', **about)",
    "from open_clip.tokenizer import HFTokenizer\nHFTokenizer('x')",
    "package.SentenceTransformer('x')",
    "options = {'trust_remote_code': True}",
    "model.from_pretrained('x', use_safetensors=False)",
    "Trainer.load(path, weights_only=False)",
    "import yaml\nyaml.load(text)",
    "import yaml\nyaml.load(text, yaml.Loader)",
    "import yaml\nyaml.load(text, Loader=yaml.FullLoader)",
    "import yaml\nyaml.unsafe_load(text)",
    "import yaml\nyaml.full_load(text)",
    "from yaml import load, Loader\nload(text, Loader)",
    "import yaml\nclass Mine(yaml.Loader): pass\nyaml.load(text, Mine)",
    "try:\n    f()\nexcept:\n    pass",
    "try:\n    f()\nexcept:\n    result = None",
    "try:\n    f()\nexcept Exception:\n    pass",
    "for x in y:\n    try:\n        f()\n    except BaseException:\n        continue",
]


@pytest.mark.parametrize("text", UNSAFE)
def test_the_guard_finds(text):
    assert unsafe(text)


SAFE = [
    "import torch\ntorch.load('x', map_location='cpu', weights_only=True)",
    "import numpy as np\nnp.load('x', allow_pickle=False)",
    "import json\njson.load(file)",
    "from pickle import UnpicklingError",
    "import yaml\nyaml.safe_load(text)",
    "import yaml\nyaml.load(text, Loader=yaml.CSafeLoader)",
    "import yaml\nclass Mine(yaml.SafeLoader): pass\nyaml.load(text, Loader=Mine)",
    "import subprocess\nsubprocess.run(['ls'], shell=False)",
    "model.from_pretrained('x', trust_remote_code=False, use_safetensors=True)",
    "import diffusers\ndiffusers.DiffusionPipeline.from_pretrained('x', use_safetensors=True)",
    "model.eval()\nframe.eval('a + b')",
    "import re\nre.compile('x')",
    "from re import compile\ncompile('x')",
    "getattr(model, 'train')()",
    "Model.load_from_checkpoint('x', weights_only=True)",
    "image.load()\nrun(model.load, json.load)",
    "import asyncio\nasyncio.create_subprocess_exec('ls')",
    "try:\n    f()\nexcept:\n    undo()\n    raise",
    "try:\n    f()\nexcept ValueError:\n    pass",
    "try:\n    f()\nexcept Exception as error:\n    log(error)",
]


@pytest.mark.parametrize("text", SAFE)
def test_the_guard_lets_pass(text):
    assert not unsafe(text)
