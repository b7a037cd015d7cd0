"""The two storeys: the library imports nothing of the workshop, and the workshop no private module of the library."""

import ast
from pathlib import Path

import eprop

ROOT = Path(eprop.__file__).parent
LIBRARY = ("neurons", "eligibility", "learning_signals", "rules", "networks", "learner", "interop", "errors")
ORDER = LIBRARY[:6]


def imports():
    """Pairs (importing file, imported module of eprop)."""
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eprop."):
                names = [node.module]
            elif isinstance(node, ast.ImportFrom) and node.module == "eprop":
                names = [f"eprop.{alias.name}" for alias in node.names]
            else:
                continue
            yield from ((file.relative_to(ROOT), name) for name in names)


def package(path):
    return path.parts[0].removesuffix(".py")


def test_the_library_stands_alone_and_its_packages_in_order():
    for file, name in imports():
        own, other = package(file), name.split(".")[1]
        if own in LIBRARY:
            assert other in LIBRARY or other.startswith("_") or other[0].isupper(), (str(file), name)
        if own in ORDER and other in ORDER:
            assert ORDER.index(other) <= ORDER.index(own), (str(file), name)


def test_no_package_imports_a_private_module_of_another():
    private = [
        (str(file), name)
        for file, name in imports()
        if any(part.startswith("_") for part in name.split(".")[2:]) and name.split(".")[1] != package(file)
    ]
    assert not private


def test_the_core_imports_no_more_than_jax_equinox_and_jaxtyping():
    known = {"jax", "equinox", "jaxtyping", "numpy", "eprop"}
    for file in sorted(ROOT.rglob("*.py")):
        if package(file.relative_to(ROOT)) not in ORDER:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                stdlib = top in __import__("sys").stdlib_module_names
                assert top in known or stdlib, (str(file), name)
