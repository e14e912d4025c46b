"""The batch is strict: what is wrong is an error in the record, the others go on, and only what failed is repeated."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from cotstudy import batch
from cotstudy.batch import Cell, Study, check_parameters, execute, expand, read_record, run_study, status

HEAD = "study: str = ''  # study\ncell: str = ''  # cell\ntask: str = 'a'  # which\nx: int = 1  # a number\nrate: float = 0.5  # a share\nseeds: list = [0]  # seeds"
ROWS = """import pandas as pd
from cotstudy.runs import study_folder, write_parquet
write_parquet(pd.DataFrame([dict(row_id=cell, cell=cell, x=x)]), study_folder(study) / 'rows' / f'{cell}.parquet')"""


@pytest.fixture
def house(tmp_path, monkeypatch):
    "A checkout of its own: a folder of templates and study files, and outputs."
    folder = tmp_path / "nbs" / "studies"
    folder.mkdir(parents=True)
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.chdir(tmp_path)

    def template(name, *cells, tagged=True):
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (HEAD, *cells)])
        nb.metadata = dict(kernelspec=dict(name="python3", language="python", display_name="python3"))
        if tagged:
            nb.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(nb, folder / f"{name}.ipynb")

    template("fine", ROWS)
    template("report", "assert study")
    template.folder = folder
    return template


def study(*grids, summaries=("report",)):
    return Study.model_validate(dict(study="s", title="S", cells=list(grids), summaries=list(summaries), timeout_s=60))


def grid(template, **over):
    return {"template": template, "over": over or {"task": ["a", "b"]}}


@pytest.mark.parametrize("given, said", [
    (dict(y=1), "no parameter"), (dict(x="2"), "expects int"), (dict(x=1.5), "expects int"), (dict(x=True), "expects int"),
    (dict(rate="1e-4"), "1.0e-4"), (dict(seeds=3), "expects list"), (dict(task=5), "expects str")])
def test_parameters_that_papermill_would_swallow(house, given, said):
    with pytest.raises(ValueError, match=said):
        check_parameters(house.folder / "fine.ipynb", given)


def test_missing_parameters_tag_is_an_error(house):
    house("untagged", ROWS, tagged=False)
    with pytest.raises(ValueError, match="no cell tagged"):
        check_parameters(house.folder / "untagged.ipynb", {})


def test_failures_are_recorded_the_others_go_on_and_only_they_are_repeated(house):
    house("wrong", "assert task != 'b', 'b is broken'", ROWS)
    house("dead", "import os\nif task == 'b': os.kill(os.getpid(), 9)", ROWS)
    s = study(grid("fine"), grid("wrong"), grid("dead"))
    lines = []
    records = run_study(s, workers=2, say=lines.append)
    bad = {r["template"]: r["error"] for r in records if r["status"] == "failed"}
    assert set(bad) == {"wrong", "dead"} and "b is broken" in bad["wrong"] and "DeadKernel" in bad["dead"]
    assert sum(r["status"] == "done" for r in records) == 5  # four cells and the report
    assert status(s)["counts"]["failed"] == 2

    house("wrong", ROWS)
    house("dead", ROWS)
    again = run_study(s, workers=2, say=lines.append)
    # the repaired templates changed, so all of their cells run again; those of `fine` do not
    assert sorted(r["template"] for r in again) == ["dead", "dead", "report", "wrong", "wrong"]
    assert {r["status"] for r in again} == {"done"}
    assert run_study(s, workers=2, say=lines.append) == []
    assert status(s)["counts"]["done"] == 6


def test_only_the_failed_cell_is_repeated(house, tmp_path):
    house("flaky", f"from pathlib import Path\nassert task == 'a' or Path({str(tmp_path / 'mended')!r}).exists()", ROWS)
    s = study(grid("flaky"))
    assert [r["status"] for r in run_study(s, workers=1, say=lambda _: None)] == ["done", "failed", "done"]
    (tmp_path / "mended").touch()
    again = run_study(s, workers=1, say=lambda _: None)
    assert [r["template"] for r in again] == ["flaky", "report"] and again[0]["parameters"]["task"] == "b"


def test_timeout_is_a_failure(house):
    house("slow", "import time; time.sleep(60)")
    record = execute("s", Cell("slow", "slow", {}), house.folder, timeout_s=2)
    assert record["status"] == "failed" and "Timeout" in record["error"]


def test_a_killed_driver_leaves_nothing_that_looks_done(house, tmp_path):
    house("slow", "import time; time.sleep(30)", ROWS)
    (house.folder / "k.yaml").write_text(json.dumps(dict(study="k", title="K", cells=[grid("slow", task=["a"])], summaries=[])))
    driver = subprocess.Popen([str(Path(sys.executable).parent / "cotstudy"), "run", "k"], cwd=tmp_path, env=os.environ, stdout=subprocess.DEVNULL)
    for _ in range(900):
        if read_record("k", "slow-a")["status"] == "running":
            break
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert read_record("k", "slow-a")["status"] == "running"
    assert status(batch.load_study("k"))["counts"]["done"] == 0


def test_unknown_study_and_misspelt_field(house):
    with pytest.raises(FileNotFoundError, match="there are"):
        batch.load_study("nope")
    (house.folder / "bad.yaml").write_text("study: s\ntitle: S\ncels: []\n")
    with pytest.raises(ValueError, match="cels"):
        batch.load_study("bad")


def test_two_cells_of_one_name_are_refused():
    with pytest.raises(ValueError, match="same name"):
        expand(study(grid("fine"), grid("fine")))


def test_tasks_vary_fastest():
    cells = expand(study(grid("fine", task=["a", "b"], x=[1, 2])))
    assert [c.name for c in cells] == ["fine-a-1", "fine-b-1", "fine-a-2", "fine-b-2"]


def test_shipped_study_files_fit_their_templates():
    folder = Path(__file__).parent.parent / "nbs" / "studies"
    files = sorted(folder.glob("*.yaml"))
    assert files
    for path in files:
        for cell in expand(batch.load_study(path)):
            check_parameters(folder / f"{cell.template}.ipynb", cell.parameters)
