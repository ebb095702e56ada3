"""No module imports itself, by whatever way round; `make lint` checks the layers."""

import pytest

grimp = pytest.importorskip("grimp")


def test_no_circle_of_modules():
    packages = ("spanets", "spanets_cli", "spanets_runtime")
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=True)
    left = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while free := [module for module, imported in left.items() if not imported & left.keys()]:
        for module in free:
            del left[module]
    assert not left, f"a circle, and what imports it: {sorted(left)}"
