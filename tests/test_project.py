"""The promises that the tree itself makes: one source of truth, pinned versions, clean notebooks, no machine in it."""
import ast
import configparser
import json
import re
import shlex
import subprocess
import tokenize
import tomllib
from importlib.metadata import packages_distributions
from io import StringIO
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
CFG = configparser.ConfigParser(delimiters=["="])
CFG.read(ROOT / "settings.ini")
CFG = CFG["DEFAULT"]
BOOK = sorted((ROOT / "nbs").rglob("*.ipynb"))
BOOK = [p for p in BOOK if ".ipynb_checkpoints" not in p.parts]


def code(path):
    return ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def exported(path):
    found = [m[1] for s in code(path) if (m := re.search(r"^#\|\s*default_exp\s+(\S+)", s, re.M))]
    return found[0] if found else None


def test_every_module_has_one_notebook_and_every_notebook_its_module():
    made = [m for p in BOOK if (m := exported(p))]
    assert len(made) == len(set(made)), "two notebooks export one module: the last would silently win"
    modules = {p.stem for p in (ROOT / "cotstudy").glob("*.py")} - {"__init__", "_modidx", "__main__"}
    assert modules == set(made)


def test_modules_import_only_from_lower_numbers():
    number = {exported(p): int(p.name[:2]) for p in BOOK if exported(p)}
    for module, n in number.items():
        source = (ROOT / "cotstudy" / f"{module}.py").read_text()
        used = set(re.findall(r"^from \.(\w+) import|^from cotstudy\.(\w+) import", source, re.M))
        used = {a or b for a, b in used} | set(sum((re.split(r",\s*", m)
                                                    for m in re.findall(r"^from (?:\.|cotstudy) import ([\w, ]+)", source, re.M)), []))
        late = {u for u in used - {module} if number.get(u, -1) >= n}  # a file that a module writes may import it
        assert not late, f"{module} ({n}) imports {late}"


def requirements(*keys):
    return {canonicalize_name(r.name): r for key in keys for r in map(Requirement, shlex.split(CFG[key]))}


def pins():
    return [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]


def test_requirements_are_pinned_in_constraints():
    wanted = requirements("requirements", "dev_requirements")
    pinned = {canonicalize_name(r.name): [p for p in pins() if canonicalize_name(p.name) == canonicalize_name(r.name)] for r in pins()}
    assert len(wanted) > 20 and not wanted.keys() - pinned.keys()
    for name, r in wanted.items():
        for pin in pinned[name]: assert r.specifier.contains(next(iter(pin.specifier)).version), f"{pin} is not {r}"


def test_pins_are_public_versions():
    "A local version such as 2.13.0+cpu lies on one index only: both commands of the README would fail everywhere else."
    for pin in pins():
        spec = list(pin.specifier)
        assert len(spec) == 1 and spec[0].operator == "==" and not pin.url, f"{pin}: a pin names one version with =="
        assert "+" not in spec[0].version, f"{pin}: a local version, which the public index does not have"
    for version in ("3.11.0", "3.11.7", "3.14.0"):
        for system in ("linux", "darwin"):
            here = dict(python_full_version=version, python_version=version[:4], sys_platform=system)
            names = [canonicalize_name(p.name) for p in pins() if not p.marker or p.marker.evaluate(here)]
            assert len(names) == len(set(names)), f"two pins of one package on Python {version}, {system}"


UNIMPORTED: dict[str, str] = {}  # what no module imports, and why it is needed all the same
TOOLS = {  # what neither a module nor a test imports
    "execnb": "used by nbdev, version fits", "fastcore": "used by nbdev, version fits",
    "ghapi": "used by nbdev, version fits", "fastgit": "used by nbdev, version fits", "jupyterlab": "make lab",
    "ipywidgets": "widgets in JupyterLab",
    "voila": "the judging page as an app", "playwright": "a browser for the judging page",
    "math-verify": "a process of its own in the extraction audit", "pytest-xdist": "pytest -n",
    "ruff": "make lint", "bokeh": "the dashboard of a cluster"}


def imported(paths):  # top-level names of packages
    nodes = [n for p in paths for n in ast.walk(ast.parse(p.read_text()))]
    later = [n.args[0].value for n in nodes if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "later" and n.args
             and isinstance(n.args[0], ast.Constant)]
    return ({name.split(".")[0] for name in later} | {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
            | {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level})


def test_every_requirement_is_used():
    owner = {module: {canonicalize_name(d) for d in found} for module, found in packages_distributions().items()}
    modules, tests = (imported(sorted((ROOT / folder).glob("*.py"))) for folder in ("cotstudy", "tests"))
    used = {d for m in modules for d in owner.get(m, ())}
    assert requirements("requirements").keys() - used == UNIMPORTED.keys()
    also = used | {d for m in tests for d in owner.get(m, ())}
    assert requirements("dev_requirements").keys() - also == TOOLS.keys()


LONGEST = 40

@pytest.mark.parametrize("path", BOOK, ids=lambda p: p.stem)
def test_exported_cells_are_lessons(path):
    long = [s.split("\n")[1] for s in code(path) if re.match(r"#\|\s*export\b", s) and len(s.split("\n")) > LONGEST]
    assert not long, f"{path.name}: cells of more than {LONGEST} lines: {long}"


def test_lint_is_strict():
    lint = tomllib.loads((ROOT / "ruff.toml").read_text())
    assert lint["line-length"] <= 140 and {"E501", "E702", "F", "B"} <= set(lint["lint"]["select"])
    assert not {"E501", "E702"} & set(lint["lint"]["ignore"])
    assert "per-file-ignores" not in lint["lint"]


def test_environment_yml_makes_the_same_environment():
    env = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in env["dependencies"] if isinstance(d, dict))
    conda = [d for d in env["dependencies"] if isinstance(d, str)]
    assert env["name"] == CFG["lib_name"] and any(CFG["min_python"] in d for d in conda if d.startswith("python"))
    assert "-c constraints.txt" in pip and "-e .[dev]" in pip


@pytest.mark.parametrize("path", BOOK, ids=lambda p: p.stem)
def test_notebooks_are_small_and_quiet(path):
    text = path.read_text()
    assert len(text) < 200_000
    nb = json.loads(text)
    outputs = [o for c in nb["cells"] if c["cell_type"] == "code" for o in c["outputs"]]
    assert not any(o["output_type"] == "error" for o in outputs)
    loud = [o for o in outputs if o["output_type"] == "stream" and o["name"] == "stderr"]
    assert not loud, "".join(loud[0]["text"])[:200]
    assert "application/vnd.jupyter.widget-view+json" not in text
    assert nb["metadata"]["kernelspec"]["language"] == "python"


@pytest.mark.parametrize("path", sorted((ROOT / "nbs" / "studies").glob("*.ipynb")), ids=lambda p: p.stem)
def test_templates_have_parameters_that_papermill_sees(path):
    import papermill
    nb = json.loads(path.read_text())
    assert sum("parameters" in c["metadata"].get("tags", []) for c in nb["cells"]) == 1
    known = papermill.inspect_notebook(str(path))
    tagged = next("".join(c["source"]) for c in nb["cells"] if "parameters" in c["metadata"].get("tags", []))
    assert set(known) == set(re.findall(r"^(\w+)\s*:", tagged, re.M)), "papermill misses a parameter"
    assert all(info["help"] for info in known.values()), "each parameter says what it means"


def test_nothing_of_a_machine_is_in_the_tree():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in files:
        path = ROOT / name
        if path.suffix not in {".py", ".ipynb", ".md", ".ini", ".txt", ".yml", ".yaml", ".json",
                               ".toml"} or not path.is_file() or path == Path(__file__):
            continue
        hit = re.search(r"/(?:root|home)/\w+|/tmp/tmp\w+|trust_remote_code\s*=\s*True|import pickle", path.read_text(errors="replace"))
        assert not hit, f"{name}: {hit[0]}"


def test_readme_names_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert "make study" in readme and "make test" in readme


def test_possessive_patterns_are_not_left_to_the_standard_library():
    """Before Python 3.11.5 `re` errs about them without a word: `1/3` was read as two numbers."""
    wrong = re.compile(r"(?<!\\)[*+?]\+|\(\?>")
    for path in sorted((ROOT / "cotstudy").glob("*.py")):
        text = path.read_text("utf-8")
        if "import regex as re" in text: continue
        tokens = tokenize.generate_tokens(StringIO(text).readline)
        assert not [t.string for t in tokens if t.type == tokenize.STRING and t.string[0] in "rR" and wrong.search(t.string)], path.name
