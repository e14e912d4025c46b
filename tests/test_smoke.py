"""The papers' own grids, walked through in small: every template and every class of student comes to its table, figure and sentences."""
import pytest
from typer.testing import CliRunner

from cotstudy import smoke as walk
from cotstudy.cli import app
from cotstudy.models import HUB, load
from cotstudy.smoke import TINY, class_of, in_small, representatives, smoke, tiny_student
from cotstudy.studies import dry_run, expand, gpu_hours, load_study

pytestmark = pytest.mark.usefixtures("one_thread")
GRIDS = ("ho2023", "scotd2023")


def one_of_each(cells):
    "A cell for each template and class of student."
    return list({(c.template, class_of(c.parameters["student"])): c for c in reversed(cells)}.values())


@pytest.mark.parametrize("name", GRIDS)
def test_every_template_of_a_grid_runs(name, data_dir, monkeypatch):
    monkeypatch.setattr(walk, "representatives", one_of_each)
    study = load_study(name)
    records = smoke(study, say=lambda line: None, every=False)
    assert {r["template"] for r in records} == {g.template for g in study.grids}
    assert [r for r in records if r["error"]] == [] and all(r["rows"] for r in records)


def test_a_cell_that_fails_is_told(monkeypatch, data_dir):
    monkeypatch.setattr(walk, "_walk", lambda *a: (_ for _ in ()).throw(ValueError("no good")))
    study = load_study("smoke").model_copy(update=dict(grids=load_study("smoke").grids[:1]))
    assert {r["error"] for r in smoke(study, say=lambda line: None)} == {"ValueError: no good"}
    monkeypatch.setattr("cotstudy.studies.load_study", lambda name: study)
    said = CliRunner().invoke(app, ["run", "smoke", "--smoke"])
    assert said.exit_code == 1 and "failed in small; the first: ValueError: no good" in said.stderr
    one = expand(study)[-1].name
    assert "1 cells" in CliRunner().invoke(app, ["run", "smoke", "--smoke", "--only", one]).stderr


def test_small_cells_keep_what_is_to_be_tried(tmp_path, data_dir):
    cell = next(c for c in expand(load_study("ho2023")) if c.template == "sample_count" and "t5" in c.parameters["student"])
    small = in_small(cell, tmp_path)
    assert small.parameters["n_rationales"] == [1, 2] and small.parameters["base"]["format"] == "ho" == cell.parameters["base"]["format"]
    assert small.parameters["base"]["recipe"] == cell.parameters["base"]["recipe"] == "ho" and small.parameters["base"]["recipe.steps"] == 2
    assert small.parameters["student"].endswith("t5") and small.parameters["base"]["teacher.model"].startswith("recorded:")
    assert small.name == cell.name and small.template == cell.template


@pytest.mark.parametrize("kind", TINY)
def test_students_of_every_class_can_be_loaded(kind, tmp_path):
    lm = load(tiny_student(kind, tmp_path))
    assert lm.kind == ("encoder_decoder" if kind == "t5" else "decoder") and lm.n_params < 200_000
    assert {class_of(n) for n in HUB} == set(TINY) and class_of(f"hub/{kind}-large") == kind


@pytest.mark.parametrize("name", GRIDS)
def test_grids_are_priced(name, data_dir):
    plan = dry_run(load_study(name))
    cells = expand(load_study(name))
    assert plan["cells"] == len(cells) > len(representatives(cells)) > 5
    assert plan["gpu_hours"] > 1 and plan["money"] > 1 and "2026-" in plan["prices"] and "assumed" in plan["gpu"]
    assert set(plan["unverified"].split()) == {c.parameters["student"] for c in cells} <= set(HUB)


def test_gpu_hours_follow_the_work():
    one, two = (gpu_hours(dict(train_flop=n * 10**20, sample_flop=n * 10**18)) for n in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.02) and gpu_hours(dict(train_flop=None, sample_flop=1)) is None


def test_the_study_of_a_real_student_is_valid(data_dir):
    cells = expand(load_study("real"))
    assert {c.parameters["student"] for c in cells} == {"pypi/smollm2-135m-instruct"} and load_study("real").needs_data
    plan = dry_run(load_study("real"))
    assert plan["students"] > 30 and plan["money"] == 0 and plan["estimated_s"] > 0
