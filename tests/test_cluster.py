"""A study on dask.distributed: what is sent out, and that its results are those of a local run."""
import json
import logging
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

distributed = pytest.importorskip("distributed")

from cotstudy import batch, cluster, runs, studies  # noqa: E402
from cotstudy.cli import app  # noqa: E402

ROOT = Path(__file__).parent.parent
SMALL = dict(study="small", title="A small study", summaries=[],
             base={"task_args.n_train": 8, "task_args.n_test": 12, "teacher.pool": 2, "recipe.steps": 3, "recipe.batch": 4},
             cells=[dict(template="sample_count", over=dict(task=["arith"], student=["pocket/xs"]),
                         **{"with": dict(n_rationales=[1, 2], seeds=[0, 1], methods=["zero_shot_cot"])}),
                    dict(template="question_count", over=dict(task=["arith"], student=["pocket/xs"]),
                         **{"with": dict(n_rationales=2, n_questions=[8], seeds=[0])})])


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path / "outputs"))
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(SMALL))
    return studies.load_study(str(file))


def items(outputs):
    return {p.stem: pd.read_parquet(p).sort_values(["instance", "path"], ignore_index=True)
            for p in sorted(Path(outputs, "small", "items").glob("*.parquet"))}


def test_a_job_comes_once_and_behind_what_it_needs(small):
    folder, cells = studies.studies_folder(), studies.expand(small)
    jobs = cluster.jobs_of(small, cells, folder)
    conditions = [c for cell in cells for c in studies.cell_conditions(cell, folder)]
    kinds = [j.kind for j in jobs.values()]
    trained = {runs.content_id("eval", *map(str, cluster.stage_key(c, "student"))) for c in conditions
               if cluster.method_named(c.method).trained}
    assert kinds.count("cell") == 2 and kinds.count("student") == len(trained) < len(conditions)
    assert kinds.count("answers") == len({batch.row_id(c) for c in conditions}) < len(conditions)  # the cells share some
    order = list(jobs)
    assert all(order.index(b) < order.index(n) for n, j in jobs.items() for b in j.needs)
    weight = cluster.waiting_for(jobs)
    assert all(weight[b] > weight[n] for n, j in jobs.items() for b in j.needs)


def test_names_of_jobs_are_those_of_another_driver(small):
    told = ("import sys; from cotstudy import cluster, studies; s = studies.load_study(sys.argv[1]); "
            "print(*cluster.jobs_of(s, studies.expand(s), studies.studies_folder()))")
    file = Path(os.environ["COTSTUDY_OUTPUTS"]).parent / "small.yaml"
    said = subprocess.run([sys.executable, "-c", told, str(file)], capture_output=True, text=True, cwd=ROOT, check=True).stdout.split()
    assert said == list(cluster.jobs_of(small, studies.expand(small), studies.studies_folder()))


def test_a_cluster_gives_what_a_local_run_gives(small, tmp_path, monkeypatch):
    lines, links = [], []
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as one:
        with urllib.request.urlopen(one.dashboard_link, timeout=30) as page: assert page.status == 200

        def through(*args): return cluster.run_cells(*args, address=one.scheduler_address, named=links.append)
        records = batch.run_study(small, say=lines.append, through=through)
    assert [r["status"] for r in records] == ["done", "done"], lines
    assert len(links) == 1 and links[0].endswith("/status") and any(links[0] in line for line in lines)
    found = items(tmp_path / "outputs")
    weights = {p.parent.name: p.read_bytes() for p in (tmp_path / "outputs/store/students").glob("*/model.safetensors")}
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path / "local"))
    batch.run_study(small, workers=1, say=lines.append)
    local = items(tmp_path / "local")
    assert found.keys() == local.keys() and all(found[k].equals(local[k]) for k in local)
    assert weights == {p.parent.name: p.read_bytes() for p in (tmp_path / "local/store/students").glob("*/model.safetensors")}


@pytest.mark.parametrize("method", ["cot_filler", "token_level"])
def test_the_student_of_a_job_is_the_one_that_is_asked(small, tmp_path, method):
    store = runs.Store(tmp_path / "store")
    taught = next(c for c in studies.cell_conditions(studies.expand(small)[0], studies.studies_folder()) if c.method == "cot")
    made = [Path(p).parent.name for p in cluster._student(store, taught.with_(method=method))]
    row, _ = runs.run(taught.with_(method=method), store)
    assert made == [row["student_id"]] == [p.name for p in (tmp_path / "store/students").iterdir() if p.is_dir()]


def test_a_worker_refuses_other_code_and_another_folder(small):
    place = cluster.place_of()
    with pytest.raises(RuntimeError, match="another cotstudy"):
        with cluster.at(cluster.Place(place.env, place.token, "0" * 64)): pass
    with pytest.raises(RuntimeError, match="is not the folder"):
        with cluster.at(cluster.Place(place.env, "of another folder", place.code)): pass
    with cluster.at(place): assert cluster._WORKS["n"] == 1
    assert cluster._WORKS["n"] == 0


def test_a_job_that_fails_says_so_and_leaves_the_cell_to_record_it(small):
    cond = studies.cell_conditions(studies.expand(small)[0], studies.studies_folder())[-1].with_(student="pocket/nobody")
    told = cluster.work("student", json.dumps(cond.model_dump(mode="json")), cluster.place_of(), False)
    assert "pocket/nobody" in told["error"] and "made" not in told


def test_what_cannot_be_is_one_line():
    run = CliRunner().invoke
    assert cluster.resources("GPU=1, MEMORY=8e9") == dict(GPU=1.0, MEMORY=8e9)
    said = run(app, ["run", "smoke", "--needs", "GPU=1"])
    assert said.exit_code == 1 and "--cluster" in said.stderr
    said = run(app, ["run", "smoke", "--cluster", "local", "--needs", "GPU"])
    assert said.exit_code == 1 and "GPU=1" in said.stderr


def test_nobody_waits_for_resources_that_no_worker_has(small):
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as one:
        with pytest.raises(ValueError, match="no worker offers"):
            cluster.run_cells(small, studies.expand(small), studies.studies_folder(), 1, lambda line: None, address=one.scheduler_address,
                              needs=dict(GPU=1.0))


def test_a_done_cell_is_not_executed_by_the_driver_that_waited(small, monkeypatch):
    cell, folder = studies.expand(small)[0], studies.studies_folder()
    executed = []
    monkeypatch.setattr(batch, "execute", lambda *a, **k: executed.append(a) or dict(status="done"))
    facts = dict(key=batch.cell_key(cell, folder), reader=batch.reader(), wall_s=1.0)
    batch.write_record("small", cell.name, status="done", has_rows=False, **facts)
    assert batch.execute_once("small", cell, folder, 10)["status"] == "done" and not executed
    batch.execute_once("small", cell, folder, 10, force=True)
    assert len(executed) == 1


def test_the_slurm_file_asks_for_a_gpu_and_offers_it():
    pytest.importorskip("dask_jobqueue")
    told = "import slurm; c = slurm.workers(); print(c.job_script())"
    said = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, cwd=ROOT / "nbs" / "studies")
    assert said.returncode == 0, said.stderr[-1500:]
    assert "#SBATCH --gres=gpu:1" in said.stdout and "--resources GPU=1" in said.stdout


def test_the_client_of_the_engine_prints_nothing_of_its_own(capfd):
    log = logging.getLogger("distributed.client")
    level = log.level
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None, silence_logs=50) as here:
        with cluster.client_of(here.scheduler_address) as client:
            log.error("a scheduler has died")
            assert client.status == "running"
        assert log.level == level and "has died" not in "".join(capfd.readouterr())
