"""Public names: all there, and where they are imported late, as the type checker sees them."""

import ast
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import lightsae

PACKAGES = ["lightsae"] + [
    found.name for found in walk_packages(lightsae.__path__, "lightsae.") if found.ispkg
]
LAZY = [
    name for name in PACKAGES if "lazy_names" in Path(str(import_module(name).__file__)).read_text()
]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there(name: str) -> None:
    package = import_module(name)
    public = getattr(package, "__all__", [])
    assert len(set(public)) == len(public)
    for item in public:
        assert getattr(package, item) is not None
        assert item in dir(package)


@pytest.mark.parametrize("name", LAZY)
def test_the_type_checker_sees_where_each_name_comes_from(name: str) -> None:
    package = import_module(name)
    tree = ast.parse(Path(str(package.__file__)).read_text())
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert list(typed) and set(typed) == set(package.__all__)
    for item, module in typed.items():
        assert getattr(package, item) is getattr(import_module(str(module)), item)


@pytest.mark.parametrize("name", LAZY)
def test_a_name_that_there_is_not_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'NoSuchName'"):
        _ = import_module(name).NoSuchName
    with pytest.raises(ImportError, match="cannot import name 'NoSuchName'"):
        exec(f"from {name} import NoSuchName")


@pytest.mark.parametrize("name", LAZY)
def test_no_module_hides_a_name(name: str) -> None:
    folder = Path(str(import_module(name).__file__)).parent
    modules = {path.stem for path in folder.iterdir()}
    assert not modules & set(import_module(name).__all__)
