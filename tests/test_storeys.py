"""The two storeys: the library imports nothing of the workshop, and the workshop no private module of the library."""

import ast
from pathlib import Path

import eprop

ROOT = Path(eprop.__file__).parent
ORDER = ("neurons", "eligibility", "learning_signals", "rules", "networks", "learner")
WORKSHOP = ("tasks", "training", "experiments", "bench", "streams", "speech", "figures", "cli")


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


def package(parts):
    """The package of `eprop` or of `eprop.workshop` that a file or a module is in."""
    parts = [part.removesuffix(".py") for part in parts]
    return ".".join(parts[:2]) if parts[0] == "workshop" and len(parts) > 1 else parts[0]


def test_the_library_imports_nothing_of_the_workshop_and_its_packages_stand_in_order():
    for file, name in imports():
        own, other = package(file.parts), package(name.split(".")[1:])
        if not own.startswith(("workshop", "__main__")):
            assert not other.startswith("workshop"), (str(file), name)
        if own in ORDER:
            assert other in (*ORDER[: ORDER.index(own) + 1], "errors", "_deprecation"), (str(file), name)


def test_the_workshop_holds_what_is_named():
    found = {path.name for path in (ROOT / "workshop").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert found == set(WORKSHOP)


def test_no_package_imports_a_private_module_of_another():
    private = []
    for file, name in imports():
        own, other = package(file.parts), name.split(".")[1:]
        inside = other[2:] if other[0] == "workshop" else other[1:]
        if any(part.startswith("_") for part in inside) and package(other) != own:
            private.append((str(file), name))
    assert not private


def test_the_core_imports_no_more_than_jax_equinox_and_jaxtyping():
    known = {"jax", "equinox", "jaxtyping", "numpy", "eprop"}
    for file in sorted(ROOT.rglob("*.py")):
        if package(file.relative_to(ROOT).parts) not in ORDER:
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
