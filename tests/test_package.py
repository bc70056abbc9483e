"""What holds for the package as a whole: budgets, imports, the list of packages, the wheel."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

import dsctool
from dsctool.config.names import config_root
from tests.evaluation.panoptic_scenes import Scene, write

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "dsctool"


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


LAYERS = [
    {"errors", "files", "terms", "cores", "rle", "entries", "coco_results", "structures"},
    {"config", "ops"},
    {"models", "data"},
    {"interop", "evaluation", "runs"},
    {"engine"},
    {"visualize"},
    {"cli"},
]
"""Parts of the package from the bottom to the top."""

UPWARDS = {("models/detector.py", "engine"), ("structures.py", "visualize"), ("structures.py", "interop")}
"""The only imports that point upwards: inside methods of what users hold, ``Detector.predict_images`` and those that
draw ``Instances`` and hand them over, which do what a higher part does."""


@pytest.mark.parametrize("layer", range(len(LAYERS) - 1))
def test_imports_point_downwards(layer: int) -> None:
    """Wherever in a file they stand; for annotations alone anything may be imported."""
    above = set().union(*LAYERS[layer + 1 :])
    wrong = set()
    for part in LAYERS[layer]:
        for path in [*(PACKAGE / part).rglob("*.py"), *PACKAGE.glob(f"{part}.py")]:
            wrong |= {(str(path.relative_to(PACKAGE)), name) for name in _imported(path) if name in above}
    assert wrong - UPWARDS == set()


def test_the_imports_that_point_upwards_wait_for_the_call() -> None:
    for file, part in UPWARDS:
        assert part in _imported(PACKAGE / file), f"{file} needs no exception any more"
        at_once = [node for node in ast.parse((PACKAGE / file).read_text()).body if isinstance(node, ast.ImportFrom)]
        assert [node.module for node in at_once if f"{node.module}.".startswith(f"dsctool.{part}.")] == []


def _imported(path: Path) -> set[str]:
    """The parts of the package that a file imports."""
    tree = ast.parse(path.read_text())
    annotations_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    modules: set[str] = set()
    for node in ast.walk(tree):
        if node in annotations_only:
            continue
        if isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {module.split(".")[1] for module in modules if module.startswith("dsctool.")}


@pytest.mark.parametrize("module", ["dsctool", "dsctool.cli.app", "dsctool.config.loading"])
def test_importing_does_not_import_torch(module: str) -> None:
    check = f"import sys, {module}; print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_api_resolves() -> None:
    for name in dsctool.__all__:
        assert getattr(dsctool, name) is not None, name
        assert name in dir(dsctool)
    with pytest.raises(AttributeError, match="no attribute 'huddel'"):
        dsctool.huddel  # noqa: B018


def test_build_model_takes_a_name_a_path_and_a_config(tmp_path: Path) -> None:
    config = dsctool.load_config("htc_tiny", ["model.num_classes=3"])
    path = tmp_path / "mine.yaml"
    path.write_text("base: htc_tiny\nmodel: {num_classes: 3}\n")
    parameters = [
        {name: value.shape for name, value in model.state_dict().items()}
        for model in (dsctool.build_model(config), dsctool.build_model(path), dsctool.build_model(str(path)))
    ]
    assert parameters[0] == parameters[1] == parameters[2]
    assert len(dsctool.build_model("htc_tiny").state_dict()) == len(parameters[0])


def test_every_package_is_listed_for_the_wheel() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent.relative_to(REPOSITORY) for path in PACKAGE.rglob("__init__.py")}
    assert set(settings["packages"]) == {".".join(folder.parts) for folder in folders} | {"dsctool.configs"}


def test_the_wheel_carries_the_shipped_configs(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    for part in ("dsctool", "configs"):
        shutil.copytree(REPOSITORY / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / part, source)
    build = "import setuptools.build_meta as backend, sys; backend.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"dsctool/configs/{path.relative_to(config_root())}" for path in config_root().rglob("*.yaml")}
    modules = {str(path.relative_to(REPOSITORY)) for path in PACKAGE.rglob("*.py")}
    assert configs | modules | {"dsctool/py.typed"} <= names


def test_shipped_configs_are_found_in_the_source_tree() -> None:
    assert config_root().resolve() == REPOSITORY / "configs"


COMPARING = {
    "eval --huddle --per-class": [],
    "eval --counts --operating-point": [],
    "eval --panoptic --per-class": [],
    "eval --huddle --errors errors": ["matplotlib"],
    "huddle-report --output report": ["matplotlib"],
    "huddle-report --output other --baseline instances/dt.json --bootstrap 20": ["matplotlib"],
}
"""Commands, and what is imported when they have run one after the other."""
PROGRAM = """
import json, sys
from dsctool.cli.app import main

for command in json.loads(sys.argv[1]):
    folder = "panoptic" if "--panoptic" in command else "instances"
    sys.argv[1:] = f"{command} --ground-truth {folder}/gt.json --predictions {folder}/dt.json".split()
    try:
        main()
    except SystemExit as end:
        assert not end.code, command
    imported = [name for name in ("torch", "matplotlib", "pycocotools.coco") if name in sys.modules]
    print("", json.dumps([command, imported]), sep="\\n")
"""


def test_comparing_files_waits_for_no_torch(tmp_path: Path) -> None:
    """Its import alone takes longer than all of a small evaluation, and with it no work is shared out."""
    for folder in ("instances", "panoptic"):
        (tmp_path / folder).mkdir()
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "pea"}], "annotations": []}
    (tmp_path / "instances/gt.json").write_text(json.dumps(truth))
    (tmp_path / "instances/dt.json").write_text("[]")
    for name in ("gt.json", "dt.json"):
        write(tmp_path / "panoptic" / name, [Scene(np.full((4, 4), 5), {5: 1})])
    command = [sys.executable, "-c", PROGRAM, json.dumps(list(COMPARING))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')) == COMPARING


def test_what_is_imported_is_installed() -> None:
    """Every library that the package imports is one that its installation brings."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    named = {re.split(r"[<>=!~ \[]", each)[0].lower() for names in lists for each in names}
    modules = {"yaml": "ruamel.yaml", "pil": "pillow", "mpl_toolkits": "matplotlib", "skimage": "scikit-image"}
    modules |= {"onnx_ir": "onnx-ir"}
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported |= {name.split(".")[0].lower() for name in names}
    others = (
        imported
        - {name.lower() for name in sys.stdlib_module_names}
        - {"dsctool", "", "mmcv", "pydantic_core", "markupsafe"}
    )
    assert {modules.get(name, name) for name in others} - named - {"ruamel"} == set()
