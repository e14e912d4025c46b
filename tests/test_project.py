"""The promises that the tree itself makes: one source of truth, pinned versions, clean notebooks, no machine in it."""
import configparser
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

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
        late = {u for u in used if number.get(u, -1) >= n}
        assert not late, f"{module} ({n}) imports {late}"


def test_requirements_are_pinned_in_constraints():
    pins = {re.split(r"[=<>!~@ ]", line)[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
            if line and line[0] != "#"}
    wanted = " ".join(v for k, v in CFG.items() if k in ("requirements", "dev_requirements")).split()
    names = {re.split(r"[=<>!~\[,]", w)[0].lower().replace("_", "-") for w in wanted}
    assert names <= pins, names - pins


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
