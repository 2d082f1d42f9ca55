"""Who may import whom, and that imports do nothing."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SLOW_LIST

PACKAGE = ROOT / "vision"

#: Compatibility modules with upstream's names: they may import anything, and nobody inside imports them.
COMPATIBILITY = {
    "vision.ssd.legacy",
    *(
        f"vision.ssd.{name}"
        for name in (
            "vgg_ssd",
            "mobilenetv1_ssd",
            "mobilenetv1_ssd_lite",
            "mobilenet_v2_ssd_lite",
            "mobilenetv3_ssd_lite",
            "squeezenet_ssd_lite",
        )
    ),
    *(f"vision.ssd.config.{name}_ssd_config" for name in ("mobilenetv1", "squeezenet", "vgg")),
    "vision.transforms.transforms",
    "vision.utils.misc",
    "vision.utils.box_utils",
}

#: Package -> packages it may import, itself apart; docs/architecture.md says why.
ALLOWED = {
    "vision": set(),
    "structures": set(),
    "utils": set(),
    "boxes": set(),
    "nn": {"boxes"},
    "transforms": {"boxes"},
    "options": {"boxes", "console", "deploy", "ssd", "utils"},
    "datasets": {"options", "boxes", "structures", "utils"},
    "ssd": {"nn", "transforms", "boxes", "structures", "utils"},
    "evaluation": {"boxes", "structures", "utils"},
    "engine": {"options", "ssd", "nn", "evaluation", "boxes", "structures", "utils"},
    "deploy": {"ssd", "evaluation", "boxes", "structures", "utils", "vision"},
    "report": {"datasets", "engine", "evaluation", "ssd", "structures", "utils", "vision"},
    "console": {"utils"},
    "commands": {"console"},
    "cli": {"console", "options", "datasets", "engine", "deploy", "ssd", "structures", "utils"},
}


#: Package -> packages of which it may also know types, without loading them.
ALLOWED_TYPES = {"engine": {"datasets"}}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def imports_of(path: Path, *, for_types: bool = False) -> set[str]:
    """Modules of ours that a file imports; names imported from a package count as the package or its module.

    Args:
        path: of the file.
        for_types: those that are imported for annotations alone, instead of the others.
    """
    found = set()
    tree = ast.parse(path.read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    of_types = {node for block in blocks for node in ast.walk(block)}
    for node in ast.walk(tree):
        if (node in of_types) != for_types:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                is_module = (ROOT / Path(*module.split("."))).with_suffix(".py").exists() or (
                    ROOT / Path(*module.split("."))
                ).is_dir()
                found.add(module if is_module else node.module)
    return {module for module in found if module.split(".")[0] == "vision"}


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    imported = imports_of(MODULES[module])
    if module in COMPATIBILITY:
        return
    assert not imported & COMPATIBILITY, "nobody inside imports compatibility modules"
    own = package_of(module)
    assert {package_of(other) for other in imported} - {own} <= ALLOWED[own]
    of_types = {package_of(other) for other in imports_of(MODULES[module], for_types=True)}
    assert of_types - {own} <= ALLOWED[own] | ALLOWED_TYPES.get(own, set())


def test_options_load_neither_torch_nor_what_reads_images():
    code = (
        "import sys, vision.options.page, vision.options.training\n"
        "print([name for name in ('torch', 'numpy', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_compatibility_modules_have_no_logic():
    for module in COMPATIBILITY - {"vision.ssd.legacy"}:
        body = ast.parse(MODULES[module].read_text()).body
        assert all(isinstance(node, (ast.Expr, ast.ImportFrom, ast.Assign)) for node in body), module


@pytest.mark.parametrize("module", MODULES)
def test_modules_do_nothing_when_imported(module):
    """At their top stand definitions, constants and imports; no loops, conditions (but the main guard) or calls."""
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING")
            continue
        kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert isinstance(node, kinds) or is_docstring, ast.unparse(node)[:80]


def test_importing_the_scripts_is_silent_and_leaves_heavy_packages_alone():
    code = (
        "import sys, train_ssd, eval_ssd, onnx_export, detect\n"
        "print([name for name in ('onnx', 'onnxruntime', 'tensorboard', 'torchvision', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_downloader_leaves_torch_alone():
    code = "import sys, open_images_downloader; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_requirements_are_what_is_imported():
    packages = {"cv2": "opencv-python", "faster_coco_eval": "faster-coco-eval", "PIL": "pillow", "yaml": "pyyaml"}
    imported = set()
    for path in [*MODULES.values(), *ROOT.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.split(".")[0] for name in names}
    ours = {"vision", *(path.stem for path in ROOT.glob("*.py"))}
    imported -= set(sys.stdlib_module_names) | ours
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = {line.split(">")[0] for line in lines if line and not line.startswith("#")}
    # torch.utils.tensorboard imports tensorboard, torch.onnx onnxscript
    assert {packages.get(name, name) for name in imported} == required - {"tensorboard", "onnxscript"}


def test_the_list_of_slow_tests_names_tests():
    named = SLOW_LIST.read_text().split()
    assert named == sorted(set(named))
    for name in named:
        file, _, function = name.partition("::")
        assert f"def {function}(" in (ROOT / "tests" / file).read_text(), name


#: Words that a reader whose first language is not English has to look up, or that need the line above to be understood.
WORDS_TO_AVOID = re.compile(
    r"\b(likewise|as above|spelt|mend|mends|mended|mending|anew|belie|porch|this room|whereof|thereof|so many)\b"
    r"|: of these\.",
    re.IGNORECASE,
)


PLAIN = sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("*.py"), ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.name)
def test_words_are_plain(path):
    """Docstrings, comments, messages and docs stand alone, in words of today."""
    found = [
        f"line {number}: {match[0]}"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if (match := WORDS_TO_AVOID.search(line))
    ]
    assert not found
