"""The batch is strict: what is wrong is an error in the record, the others go on, and only what failed is repeated."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cotstudy import batch
from cotstudy.analyses import ANALYSES
from cotstudy.batch import adopt, collect_finished, execute, read_record, run_study, status
from cotstudy.conditions import over_each_other, row_id
from cotstudy.results import results
from cotstudy.studies import Cell, Study, cell_conditions, check_parameters, expand, load_study, parameters_of, studies_folder

HEAD = """study: str = ''  # study
cell: str = ''  # cell
task: str = 'a'  # which
x: int = 1  # a number
rate: float = 0.5  # a share
seeds: list = [0]  # seeds"""
ROWS = """import pandas as pd
from cotstudy.files import write_parquet
from cotstudy.results import study_folder
write_parquet(study_folder(study) / 'rows' / f'{cell}.parquet', pd.DataFrame([dict(row_id=cell, cell=cell, x=x)]))"""


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


def template_with(house, line):
    "A template with one more line in its parameter cell."
    house("edited", ROWS)
    path = house.folder / "edited.ipynb"
    nb = nbformat.read(path, 4)
    nb.cells[0].source += f"\n{line}"
    nbformat.write(nb, path)
    return path


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
    driver = subprocess.Popen([str(Path(sys.executable).parent / "cotstudy"), "run", "k"], cwd=tmp_path, env=os.environ,
                              stdout=subprocess.DEVNULL)
    for _ in range(900):
        if read_record("k", "slow-a")["status"] == "running":
            break
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert read_record("k", "slow-a")["status"] == "running"
    counts = status(load_study("k"))
    assert counts["counts"] == dict(done=0, failed=1, running=0, stale=0, new=0) and "process is gone" in counts["cells"][0]["error"]


def test_a_template_without_rows_is_done_when_it_has_ended(house):
    house("note", "assert task")
    s = study(grid("note"), summaries=())
    assert {r["status"] for r in run_study(s, workers=1, say=lambda _: None)} == {"done"}
    assert status(s)["counts"]["done"] == 2 and run_study(s, workers=1, say=lambda _: None) == []


def test_some_cells_alone(house):
    s = study(grid("fine"))
    with pytest.raises(ValueError, match="no cell of 's' has a name like 'fine-c'; the first: fine-a, fine-b"):
        run_study(s, workers=1, say=lambda _: None, only="fine-c")
    assert [Path(r["notebook"]).stem for r in run_study(s, workers=1, say=lambda _: None, only="*-b")] == ["fine-b", "report"]
    assert {c["cell"]: c["status"] for c in status(s)["cells"]} == {"fine-a": "new", "fine-b": "done"}
    run_study(s, workers=1, say=lambda _: None)
    assert set(results("s")[0].cell) == {"fine-a", "fine-b"}


def test_rows_that_are_gone_make_a_cell_stale(house, tmp_path):
    s = study(grid("fine"), summaries=())
    run_study(s, workers=1, say=lambda _: None)
    (tmp_path / "outputs" / "s" / "rows" / "fine-a.parquet").unlink()
    assert status(s)["counts"] == dict(done=1, failed=0, running=0, stale=1, new=0)
    assert [r["parameters"]["task"] for r in run_study(s, workers=1, say=lambda _: None)] == ["a"]


def test_a_cell_is_done_by_its_parameters_its_template_and_the_conditions_that_follow(house, monkeypatch):
    "The record is read first; then what decides the conditions; the conditions themselves only where that has changed."
    from cotstudy import batch
    made = []
    monkeypatch.setattr(batch, "cell_conditions", lambda cell, folder: made.append(cell.name) or [])
    folder, a, b = house.folder, *expand(study(grid("fine")))
    facts = dict(key=batch.cell_key(a, folder), stamp=batch.cell_stamp(a, folder), reader=batch.reader())
    batch.write_record("s", "fine-a", status="done", has_rows=False, **facts)
    done = lambda cell: batch.is_done(read_record("s", "fine-a") if cell is a else read_record("s", cell.name), "s", cell, folder)
    made.clear()
    assert done(a) and not done(b) and not made
    monkeypatch.setattr(batch, "text_of", lambda package: "another version")
    assert done(a) and made == ["fine-a"]  # the same conditions after all
    monkeypatch.setattr(batch, "row_id", str)
    monkeypatch.setattr(batch, "cell_conditions", lambda cell, folder: ["another condition"])
    assert not done(a)
    monkeypatch.undo()


def test_a_template_is_read_once_and_again_when_it_has_changed(house, monkeypatch):
    reads, read = [], Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *more: (path.suffix == ".ipynb" and reads.append(path)) or read(path, *more))
    cells = expand(study(grid("fine", x=list(range(50)))))
    for c in cells: assert check_parameters(house.folder / "fine.ipynb", c.parameters)["x"] == c.parameters["x"]
    assert len(reads) == 1
    assert check_parameters(template_with(house, "more: int = 3  # more"), {})["more"] == 3


def test_the_surroundings_are_put_back(house, monkeypatch):
    import logging
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before, level = dict(os.environ), logging.getLogger("papermill").level
    run_study(study(grid("fine"), summaries=()), workers=1, say=lambda _: None)
    assert dict(os.environ) == before and logging.getLogger("papermill").level == level


def test_progress_counts_conditions(house):
    note = ("from cotstudy.results import note_progress, study_folder\n"
            "for k in range(4): note_progress(study_folder(study), cell, k + 1, 4, None)\n"
            "import time\ntime.sleep(3)")
    house("long", note, ROWS)
    seen = []
    run_study(study(grid("long", task=["a"]), summaries=()), workers=1, say=lambda _: None, progress=lambda *n: seen.append(n))
    assert (4, 4) in seen and all(done <= total for done, total in seen)


@pytest.mark.parametrize("line, value", [('cue: str = "#### "', "#### "), ('cue: str = "it\'s"', "it's"), ('cue: str = ""', ""),
                                         ('cue: str = "a # b"', "a # b"),
                                         ("cue: float = 1e-3", 1e-3), ("cue: float = -.5", -0.5), ("cue: int = -3", -3),
                                         ("cue: list = ['no', 1e5]", ["no", 1e5]),
                                         ('cue: dict = {"recipe.lr": 2e-3}', {"recipe.lr": 2e-3}), ("cue: int | None = None", None),
                                         ("cue: bool = True", True),
                                         ("cue: list[int] = [1, 2]", [1, 2]), ('cue: str = "yes"', "yes"), ('cue: str = "1e-3"', "1e-3")])
def test_defaults_are_python_literals(house, line, value):
    path = template_with(house, f"{line}  # a cue")
    found = check_parameters(path, {})["cue"]
    assert found == value and type(found) is type(value) and parameters_of(path)["cue"].help == "a cue"


@pytest.mark.parametrize("line, said", [("cue: str = open", "no literal"), ("cue: thing = 1", "no literal"), ("cue = 1", "no `name: type"),
                                        ("import os", "no `name: type")])
def test_parameters_that_are_no_literals_are_refused(house, line, said):
    with pytest.raises(ValueError, match=said): check_parameters(template_with(house, line), {})


def test_a_base_is_said_once_and_cells_add_to_it():
    s = Study.model_validate(dict(study="s", title="S", base={"recipe.steps": 5, "recipe.lr": 1e-3}, cells=[
        {"template": "sample_count", "over": {"task": ["arith"], "student": ["pocket/s"], "recipe.batch": [4, 8]},
         "base": {"recipe.lr": 2e-3}}]))
    cells = expand(s)
    assert [c.name for c in cells] == ["sample_count-arith-pocket_s-4", "sample_count-arith-pocket_s-8"]
    assert [c.parameters["base"] for c in cells] == [{"recipe.steps": 5, "recipe.lr": 2e-3, "recipe.batch": b} for b in (4, 8)]


@pytest.mark.parametrize("bases, want", [
    ([{"recipe": "ho"}, {"recipe": dict(steps=5)}], {"recipe": "ho", "recipe.steps": 5}),
    ([{"recipe.lr": 0.1, "task_args.seed": 7}, {"recipe": "scotd"}], {"recipe": "scotd", "task_args.seed": 7}),
    ([{"task_args": dict(n_train=9)}, {"task_args": dict(seed=7)}], {"task_args.n_train": 9, "task_args.seed": 7}),
    ([{"task_args.difficulty": dict(steps=[2, 3])}, {"task_args.difficulty": dict(n=1)}], {"task_args.difficulty": dict(n=1)}),
    ([{"recipe.lr": 0.1, "recipe.steps": 3}, {"recipe.lr": 0.2}, {}], {"recipe.steps": 3, "recipe.lr": 0.2}),
    ([{"recipe.steps": 50, "recipe": "ho"}], {"recipe": "ho", "recipe.steps": 50}),
    ([{"recipe": "ho", "recipe.steps": 50}], {"recipe": "ho", "recipe.steps": 50}),
    ([{"task_args.seed": 7, "task_args": dict(n_train=9)}], {"task_args.n_train": 9, "task_args.seed": 7})])
def test_groups_of_fields_lie_over_each_other_field_by_field(bases, want):
    assert over_each_other(*bases) == want


@pytest.mark.parametrize("part", ["over", "with"])
def test_a_base_that_is_no_mapping_is_one_line(house, part):
    said = {"template": "sample_count", "over": {"task": ["arith"], "student": ["pocket/s"]}}
    said[part] = said.get(part, {}) | {"base": [3]}
    with pytest.raises(ValueError, match=r"study 's', sample_count: base is .*3.*, expected a mapping"):
        expand(Study.model_validate(dict(study="s", title="S", cells=[said])))


BAD = {"twice": "study: s\nstudy: t\ntitle: T\ncells: []", "list": "- a", "open": "study: [", "tab": "study:\ts\n\t- x",
       "cels": "study: s\ntitle: S\ncels: []",
       "no_cells": "study: s\ntitle: S\ncells: []", "up": "study: ../up\ntitle: T\ncells: [{template: a, over: {task: [a]}}]",
       "abs": "study: /tmp/x\ntitle: T\ncells: [{template: a, over: {task: [a]}}]",
       "template": "study: s\ntitle: T\ncells: [{template: ../../x, over: {task: [a]}}]",
       "over": "study: s\ntitle: T\ncells: [{template: a, over: 3}]", "empty": "", "nul": "study: \0", "deep": "a: " + "[" * 5000,
       "anchor": "study: *x",
       "python": "study: !!python/object/apply:os.system [ls]", "number": "42",
       "title": "study: s\ntitle: [1]\ncells: [{template: a, over: {task: [a]}}]"}


@pytest.mark.parametrize("name", BAD)
def test_bad_study_files_are_one_line_errors(house, name):
    (house.folder / f"{name}.yaml").write_text(BAD[name])
    with pytest.raises(ValueError) as e: load_study(name)
    assert "\n" not in str(e.value) and name in str(e.value)


LEAF = st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "x", "arith", "a:b", "ho", 10**30, 0.5, float("nan")])
KEYS = st.sampled_from(["", "x", "base", "recipe", "lr", 1])
ODD = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2), max_leaves=4)


PLACES = st.sampled_from(["top", "base", "cell", "over", "with", "own"])  # of a study file


@given(template=st.sampled_from(list(ANALYSES)), oddities=st.lists(st.tuples(PLACES, st.integers(0, 40), ODD), min_size=1, max_size=2))
def test_a_study_file_of_any_content_is_a_plan_or_one_line(tmp_path_factory, template, oddities):
    from cotstudy.studies import dry_run
    cell = dict(template=template, over=dict(task=["arith"], student=["pocket/xs"]), base={})
    cell["with"], doc = {}, dict(study="s", title="S", base={"task_args.n_train": 24, "recipe.steps": 10}, cells=[cell])
    places = dict(top=doc, base=doc["base"], cell=cell, over=cell["over"], own=cell["base"]) | {"with": cell["with"]}
    words = dict(top=list(doc), cell=list(cell))
    fields = [*ANALYSES[template].knobs, "task", "student", "base", "recipe", "recipe.lr", "teacher", "teacher.pool", "format", "seed"]
    for place, k, odd in oddities:
        places[place][(names := words.get(place, fields))[k % len(names)]] = odd
    file = tmp_path_factory.mktemp("any") / "s.yaml"
    file.write_text(yaml.safe_dump(doc))
    try: dry_run(load_study(file))
    except (ValueError, FileNotFoundError) as e: assert len(str(e)) > 12 and "\n" not in str(e)


def test_absurd_sizes_are_refused_before_anything_is_made():
    from cotstudy.studies import dry_run
    cells = [grid("sample_count", task=["arith"], student=["pocket/s"], n_paths=list(range(10**5 + 1)))]
    many = Study.model_validate(dict(study="s", title="S", cells=cells))
    with pytest.raises(ValueError, match="100,001 cells"): expand(many)
    huge = Study.model_validate(dict(study="s", title="S", base={"task_args.n_train": 10**12},
                                     cells=[grid("sample_count", task=["arith"], student=["pocket/s"])]))
    with pytest.raises(ValueError, match="n_train is 1000000000000"): dry_run(huge)


def test_more_questions_than_there_are_is_refused_before_anything_is_asked(tmp_path, monkeypatch):
    from cotstudy.studies import dry_run
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    cell = grid("question_count", task=["arith"], student=["pocket/xs"]) | {"with": dict(n_questions=[8, 999])}
    study = Study.model_validate(dict(study="s", title="S", base={"task_args.n_train": 60}, cells=[cell]))
    for go in (dry_run, run_study):
        with pytest.raises(ValueError, match="n_questions is 999, and arith has 60"): go(study)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_plan_has_a_line_and_minutes_for_each_cell():
    from cotstudy.studies import dry_run, load_study, priced
    plan = dry_run(load_study("pocket-full"))
    assert [c["cell"] for c in plan["each"]] == [c.name for c in expand(load_study("pocket-full"))]
    assert plan["core_hours"] == pytest.approx(sum(c["minutes"] for c in plan["each"]) / 60, abs=0.06)
    assert sum(c["students"] for c in plan["each"]) < plan["students"]  # those of the study beside it are not made again
    lines = priced(plan).split("\n")
    assert len(lines) == len(plan) - 1 + 2 + plan["cells"] and lines[-1].split()[0] == plan["each"][-1]["cell"]
    assert float(lines[-1].split()[1]) == plan["each"][-1]["minutes"] > 0


def test_unknown_study(house):
    with pytest.raises(FileNotFoundError, match="there are"): load_study("nope")


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
        for cell in expand(load_study(path)):
            check_parameters(folder / f"{cell.template}.ipynb", cell.parameters)


TINY = Study.model_validate(dict(
    study="tiny", title="Tiny", summaries=[], base={"task_args.n_train": 6, "task_args.n_test": 4, "teacher.pool": 2, "recipe.steps": 1},
    cells=[{"template": "sample_count", "over": {"task": ["arith"], "student": ["pocket/xs"]},
            "with": {"n_rationales": [1], "seeds": [0]}}]))


def test_a_clone_shows_a_finished_study_and_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path / "outputs"))
    home = tmp_path / "outputs" / "tiny"
    assert [r["status"] for r in run_study(TINY, workers=1, say=lambda _: None)] == ["done"]
    told = "".join(p.read_text() for p in (home / "notebooks").glob("*.ipynb"))
    assert "papermill" in told and str(tmp_path) not in told and str(Path(__file__).parent.parent) not in told, "a path of this machine"
    rows, items = (pd.read_parquet(home / f"{name}.parquet") for name in ("rows", "items"))
    clone = tmp_path / "clone"
    (clone / "tiny").mkdir(parents=True)
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(clone))

    def begin(rows, items):
        shutil.rmtree(clone / "tiny")
        (clone / "tiny").mkdir()
        rows.to_parquet(clone / "tiny" / "rows.parquet")
        items.to_parquet(clone / "tiny" / "items.parquet")

    begin(rows, items)
    assert status(TINY)["counts"]["done"] == 1 and sorted(p.name for p in (clone / "tiny").iterdir()) == ["items.parquet", "rows.parquet"]
    assert run_study(TINY, workers=1, say=lambda _: None) == [] and status(TINY)["counts"]["done"] == 1
    pd.testing.assert_frame_equal(pd.read_parquet(clone / "tiny" / "rows.parquet"), rows)
    assert read_record("tiny", expand(TINY)[0].name)["adopted"] and not (clone / "store").exists()
    for r, i in ((rows.iloc[1:], items), (rows, items.iloc[1:]), (rows.assign(start_id="another"), items),
                 (rows.drop(columns="start_id"), items), (rows.assign(accuracy=float("nan")), items)):
        begin(r, i)
        assert status(TINY)["counts"]["new"] == 1 and adopt("tiny", expand(TINY), studies_folder()) == 0


def test_cells_that_share_a_condition_are_all_done_on_a_clone(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    two = TINY.model_copy(update=dict(grids=[TINY.grids[0].model_copy(update=dict(
        over=TINY.grids[0].over | {"seeds": [[0], [1]]}, fixed={"n_rationales": [1]}))]))
    assert [r["status"] for r in run_study(two, workers=1, say=lambda _: None)] == ["done", "done"]
    rows = pd.read_parquet(tmp_path / "tiny" / "rows.parquet")
    assert rows.row_id.duplicated().any()
    for name in ("rows", "items", "record", "store"): shutil.rmtree(tmp_path / "tiny" / name, ignore_errors=True)
    assert status(two)["counts"]["done"] == 2


def test_one_cell_alone_leaves_the_rows_of_the_others_on_a_clone(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    two = TINY.model_copy(update=dict(grids=[TINY.grids[0].model_copy(update=dict(
        over=TINY.grids[0].over | {"seeds": [[0], [1]]}, fixed={"n_rationales": [1]}))]))
    run_study(two, workers=1, say=lambda _: None)
    before = pd.read_parquet(tmp_path / "tiny" / "rows.parquet")
    for name in ("rows", "items", "record"): shutil.rmtree(tmp_path / "tiny" / name)
    assert [r["status"] for r in run_study(two, workers=1, force=True, only=expand(two)[1].name, say=lambda _: None)] == ["done"]
    after = pd.read_parquet(tmp_path / "tiny" / "rows.parquet")
    assert sorted(after.row_id) == sorted(before.row_id) and set(after.cell) == {c.name for c in expand(two)}


@pytest.mark.parametrize("given", [{"base": {"task_args.exemplars": 0}}, {"base": {"task_args": {"exemplars": 0}}}, {"task": 0},
                                   {"base": {"sources": [0]}}])
def test_a_cell_is_another_one_when_a_file_that_it_names_has_changed(given, tmp_path):
    file, keys = tmp_path / "own.jsonl", []
    named = json.loads(json.dumps(given).replace("0", json.dumps(str(file))))
    cell, folder = Cell("c", "sample_count", dict(task="arith") | named), studies_folder()
    for text in ("one", "two", "one"):
        file.write_text(text)
        keys.append((batch.cell_key(cell, folder), batch.cell_stamp(cell, folder)))
    assert keys[0] == keys[2] and all(a != b for a, b in zip(keys[0], keys[1]))


@pytest.mark.parametrize("said, read", [("2e-3", 0.002), ("1E3", 1000.0), ("-5e+2", -500.0), ("2.0e-3", 0.002), ("12e", "12e"),
                                        ("1:30", "1:30")])
def test_numbers_of_a_study_file_are_read_as_people_write_them(tmp_path, said, read):
    from cotstudy.studies import _read_yaml
    (tmp_path / "s.yaml").write_text(f"study: s\nx: {said}\n")
    assert _read_yaml(tmp_path / "s.yaml")["x"] == read


@pytest.mark.parametrize("name", ["store", "Bench"])
def test_a_study_is_not_named_like_a_folder_of_outputs(house, name):
    cells = "[{template: sample_count, over: {task: [arith], student: [pocket/xs]}}]"
    (house.folder / "odd.yaml").write_text(f"study: {name}\ntitle: T\ncells: {cells}\n")
    with pytest.raises(ValueError, match="take another name"): load_study("odd")


def test_rows_of_another_study_with_the_same_name_are_set_aside(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    one, other = (TINY.model_copy(update=dict(grids=[TINY.grids[0].model_copy(update=dict(
        over=TINY.grids[0].over | {"seeds": [[k]]}, fixed={"n_rationales": [1]}))])) for k in (0, 1))
    run_study(one, workers=1, say=lambda _: None)
    rows, items = (pd.read_parquet(tmp_path / "tiny" / f"{name}.parquet") for name in ("rows", "items"))
    lines = []
    run_study(other, workers=1, say=lines.append)
    assert set(pd.read_parquet(tmp_path / "tiny" / "rows.parquet").cell) == {expand(other)[0].name}
    (place,) = (tmp_path / "tiny" / "aside").iterdir()
    assert any(str(place) in x for x in lines), lines
    assert sorted(pd.read_parquet(place / "rows.parquet").row_id) == sorted(rows.row_id)
    assert sorted(pd.read_parquet(place / "items.parquet").eval_id) == sorted(items.eval_id)
    assert status(one)["counts"]["done"] == 1  # its own files are where they were
    run_study(one, workers=1, force=True, say=lines.append)
    assert set(pd.read_parquet(tmp_path / "tiny" / "rows.parquet").row_id) == set(rows.row_id)


def test_rows_of_other_conditions_are_not_collected_with_those_of_today(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    two = TINY.model_copy(update=dict(grids=[TINY.grids[0].model_copy(update=dict(
        over=TINY.grids[0].over | {"seeds": [[0], [1]]}, fixed={"n_rationales": [1]}))]))
    edited = two.model_copy(update=dict(base=two.base | {"recipe.steps": 2}))
    run_study(two, workers=1, say=lambda _: None)
    before, names, lines = pd.read_parquet(tmp_path / "tiny" / "rows.parquet"), [c.name for c in expand(two)], []
    run_study(edited, workers=1, only=names[0], say=lines.append)
    now = pd.read_parquet(tmp_path / "tiny" / "rows.parquet")
    assert set(now.cell) == {names[0]} and any("not collected" in x and names[1] in x for x in lines), lines
    (place,) = (tmp_path / "tiny" / "aside").iterdir()
    assert set(pd.read_parquet(place / "rows.parquet").row_id) == set(before.row_id)  # the edited ones, too
    lines.clear()
    run_study(two, workers=1, only=names[1], say=lines.append)  # done, and of this study: collected, and nothing runs
    assert set(pd.read_parquet(tmp_path / "tiny" / "rows.parquet").cell) == {names[1]} and any("0 to run" in x for x in lines), lines
    fewer = two.model_copy(update=dict(grids=[two.grids[0].model_copy(update=dict(over=two.grids[0].over | {"seeds": [[0]]}))]))
    run_study(two, workers=1, say=lambda _: None)
    assert len(pd.read_parquet(tmp_path / "tiny" / "rows.parquet").cell.unique()) == 2
    run_study(fewer, workers=1, say=lambda _: None)
    assert set(pd.read_parquet(tmp_path / "tiny" / "rows.parquet").cell) == {names[0]}


def test_where_no_cell_is_of_today_nothing_old_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    run_study(TINY, workers=1, say=lambda _: None)
    broken = TINY.model_copy(update=dict(base=TINY.base | {"teacher.model": str(tmp_path / "nowhere")}))
    assert [r["status"] for r in run_study(broken, workers=1, say=lambda _: None)] == ["failed"]
    wanted = {row_id(c) for c in cell_conditions(expand(broken)[0], studies_folder())}
    assert {*pd.read_parquet(tmp_path / "tiny" / "rows.parquet").row_id} == wanted  # failures, and nothing of the other teacher
    assert len([*(tmp_path / "tiny" / "aside").iterdir()]) == 1
    (tmp_path / "tiny" / "rows" / f"{expand(TINY)[0].name}.parquet").write_bytes(
        next((tmp_path / "tiny" / "aside").glob("*/rows.parquet")).read_bytes())  # of a version that is gone, and not of today's
    assert collect_finished(broken, studies_folder(), lambda _: None)
    assert not (tmp_path / "tiny" / "rows.parquet").exists() and not (tmp_path / "tiny" / "items.parquet").exists()


def test_rows_of_ones_own_template_need_no_names(house):
    house("own", ROWS.replace("row_id=cell, cell=cell, x=x", "value=x"))
    s = study(grid("own"), summaries=[])
    assert [r["status"] for r in run_study(s, workers=1, say=lambda _: None)] == ["done", "done"]
    assert run_study(s, workers=1, say=lambda _: None) == []
    assert len(results("s")[0]) == 2


def test_a_cell_that_an_earlier_reader_read_is_run_again(tmp_path, monkeypatch):
    from cotstudy import batch
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path))
    run_study(TINY, workers=1, say=lambda _: None)
    assert status(TINY)["counts"]["done"] == 1
    monkeypatch.setattr(batch, "reader", lambda: "another")
    assert status(TINY)["counts"]["stale"] == 1
