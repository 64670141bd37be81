"""Properties of the repository's own files: sizes, paths, functions, docstrings."""

import ast
import re
import statistics
from pathlib import Path

import pytest

LARGEST = 2 * 2**20
LONGEST, MOST_ARGUMENTS, MEDIAN = 60, 8, 10
# Methods that torch names are told in their class; a class with other bases may override methods that are told there.
HOOKS = {"forward", "backward", "setup_context", "extra_repr"}
PLAIN_BASES = {"nn.Module", "torch.nn.Module", "NamedTuple", "Enum"}
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(?:root|home|work|Users|tmp)/[\w.-]+")
HOSTS = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs\.org")


def functions(tree):
    """Every function of a syntax tree."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(function):
    """Lines of a function, its decorators and its docstring left out."""
    first = function.body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return function.end_lineno - function.lineno + 1 - (first.end_lineno - first.lineno + 1 if told else 0)


def arguments(function):
    """How many arguments a caller may give: all but self and cls, ``*args`` and ``**kwargs``."""
    every = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return sum(argument.arg not in ("self", "cls") for argument in every)


def mutable_defaults(function):
    """Defaults that all calls would share."""
    given = [*function.args.defaults, *(default for default in function.args.kw_defaults if default)]
    return [node for node in given if isinstance(node, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp)]


def untold(tree):
    """Public classes and functions of a module, and public methods of public classes, that have no docstring."""
    for node in _public(tree.body):
        inner = _public(node.body) if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} <= PLAIN_BASES else []
        yield from (child.name for child in [node, *inner] if ast.get_docstring(child) is None and child.name not in HOOKS)


def _public(body):
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node for node in body if isinstance(node, kinds) and not node.name.startswith("_")]


@pytest.fixture(scope="module")
def python_files(source_files):
    """(path, syntax tree) of every Python file of the repository."""
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in source_files if path.suffix == ".py"]


@pytest.fixture(scope="module")
def every_function(python_files, checkout):
    """"file:line name" -> syntax tree of every function of the repository."""
    return {f"{path.relative_to(checkout)}:{node.lineno} {node.name}": node for path, tree in python_files for node in functions(tree)}


def test_no_file_is_large(source_files, checkout):
    weights = set((checkout / "pretrained").glob("*/model.safetensors"))  # which tests/publishing/test_pretrained.py bounds
    assert [str(path) for path in source_files if path.stat().st_size > LARGEST and path not in weights] == []


def own_path(checkout):
    """Matches the home and the surroundings of the checkout on this machine; tests may plant other machines' paths."""
    folders = {str(folder) for folder in (Path.home(), checkout.parent) if folder != Path("/")}
    return re.compile(r"(?<![\w.$}/-])(?:" + "|".join(map(re.escape, sorted(folders, key=len, reverse=True))) + r")/[\w.-]+")


def test_no_path_of_a_machine_and_no_registry_host(source_files, checkout):
    found = []
    for path in source_files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        paths = own_path(checkout) if checkout / "tests" in path.parents else MACHINE_PATH
        found += [f"{path.relative_to(checkout)}: {match}" for match in [*paths.findall(text), *HOSTS.findall(text)]]
    assert found == []


def test_a_planted_path_of_this_machine_is_found(checkout):
    assert own_path(checkout).findall(f'open("{Path.home()}/corpus/a.flac")') == [f"{Path.home()}/corpus"]
    assert own_path(checkout).findall(f"--out={checkout.parent}/runs") == [f"{checkout.parent}/runs"]
    assert own_path(checkout).findall("/ho" + "me/somebody-else/corpus") == []


@pytest.mark.parametrize("prefix, found", [("", 1), ("$OUT", 0), ("spikebrain", 0), ("--data_folder=", 1), ("https://x.y", 0)])
def test_a_planted_machine_path_is_found(prefix, found):
    assert len(MACHINE_PATH.findall(f'x = "{prefix}' + "/ho" + 'me/ada/corpus"')) == found


def test_functions_are_short(every_function):
    sizes = {name: length(node) for name, node in every_function.items()}
    long = {name: size for name, size in sizes.items() if size > LONGEST and "kernels/" not in name}
    assert long == {}
    assert statistics.median(sizes.values()) <= MEDIAN


def test_functions_take_few_arguments(every_function):
    many = {name: arguments(node) for name, node in every_function.items() if arguments(node) > MOST_ARGUMENTS}
    assert {name: count for name, count in many.items() if "kernels/" not in name} == {}


def test_no_default_is_mutable(every_function):
    assert [name for name, node in every_function.items() if mutable_defaults(node)] == []


def test_public_names_are_told(python_files, checkout):
    package = checkout / "spikebrain"
    told = [(path, tree) for path, tree in python_files if package in path.parents or path.parent == checkout / "tools"]
    assert [f"{path.relative_to(checkout)}: {name}" for path, tree in told for name in untold(tree)] == []
    assert [str(path.relative_to(checkout)) for path, tree in told if tree.body and ast.get_docstring(tree) is None] == []


def test_planted_faults_are_found():
    lines = "".join(f"    x{i} = {i}\n" for i in range(LONGEST))
    tree = ast.parse(f"def f(a, b, c, d, e, g, h, i, j, k=[]):\n{lines}class C:\n    def m(self): pass\n")
    bad = functions(tree)[0]
    assert length(bad) == LONGEST + 1 and arguments(bad) == 10 and len(mutable_defaults(bad)) == 1
    assert list(untold(tree)) == ["f", "C", "m"]


def test_test_files_have_names_of_their_own(source_files, checkout):
    names = [path.name for path in source_files if checkout / "tests" in path.parents and path.name.startswith(("test_", "__init__"))]
    assert sorted(names) == sorted(set(names)) and "__init__.py" not in names
