"""Warm kernels: each is alone, ends when its driver ends, and begins the ordinary way where a fork is not safe."""
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from cotstudy import kernels
from cotstudy.files import runs_here
from cotstudy.kernels import Forked, Nursery, WarmManager, kernel_arguments, nursery

linux = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")


def run(source: str, **how) -> str:
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in source.split("\n---\n")])
    NotebookClient(nb, kernel_manager_class=WarmManager, kernel_name="python3", **how).execute()
    return "".join(o["text"] for c in nb.cells for o in c.outputs if o.output_type == "stream").strip()


@linux
def test_kernels_are_forks_and_share_nothing_that_changes(monkeypatch, tmp_path):
    told = "import os, random, sys, numpy\nprint(os.getpid(), os.getppid(), random.random(), numpy.random.rand(), 'torch' in sys.modules)"
    (a, forker, *numbers, warm), (b, again, *others, _) = run(told).split(), run(told).split()
    assert a != b and forker == again == str(nursery(os.environ).process.pid) and warm == "True" and not {*numbers} & {*others}
    monkeypatch.setenv("COTSTUDY_SAID", "now")
    monkeypatch.chdir(tmp_path)
    assert run("import os\nprint(os.environ['COTSTUDY_SAID'], 'JE_ARROW_MALLOC_CONF' in os.environ)") == "now False"
    assert not runs_here(int(a)) and not runs_here(int(b))


def test_errors_deaths_and_time_limits_are_seen():
    with pytest.raises(CellExecutionError, match="boom"): run("raise ValueError('boom')")
    with pytest.raises(DeadKernelError): run("import os\nos._exit(3)")
    with pytest.raises(CellTimeoutError): run("import time\ntime.sleep(60)", timeout=1)
    assert run("print(1)\n---\nprint(2)") == "1\n2"


def test_tables_are_shown_as_in_any_notebook():
    asked = "import pandas\nprint(*(pandas.get_option(f'display.{k}') for k in ('max_columns', 'max_rows', 'width')))"
    assert run(asked) == "20 60 80"


def test_figures_are_shown():
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")])
    NotebookClient(nb, kernel_manager_class=WarmManager, kernel_name="python3").execute()
    assert any("image/png" in o.get("data", {}) for o in nb.cells[0].outputs)


@linux
def test_a_nursery_that_is_gone_is_replaced():
    first = nursery(os.environ).process
    run("print(1)")
    first.kill()
    first.wait()
    assert run("print(1)") == "1" and nursery(os.environ).process.pid != first.pid


@linux
def test_kernels_end_with_their_driver():
    told = """
import asyncio, sys, time
from cotstudy.kernels import WarmManager
async def go():
    m = WarmManager(kernel_name="python3")
    await m.start_kernel(extra_arguments=["--log-level=50"])
    print(m.provisioner.pid, flush=True)
    time.sleep(600)
asyncio.run(go())
"""
    driver = subprocess.Popen([sys.executable, "-c", told], stdout=subprocess.PIPE, text=True)
    kernel = int(driver.stdout.readline())
    assert runs_here(kernel)
    time.sleep(2)  # it watches its parent from its first second on
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    until = time.monotonic() + 60
    while runs_here(kernel) and time.monotonic() < until: time.sleep(0.2)
    assert not runs_here(kernel)


@linux
def test_with_more_threads_than_one_nothing_is_forked(monkeypatch):
    code = """
import threading, time
from cotstudy import kernels
kernels.PRELOADED = ()
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
kernels.serve()
"""
    popen = subprocess.Popen
    def threaded(cmd, **kw): return popen([*cmd[:2], code], **kw)
    monkeypatch.setattr(kernels.subprocess, "Popen", threaded)
    busy = Nursery(os.environ)
    try: assert busy.kernel(["-f", "none"], os.environ, None) == 0
    finally: busy.close()


def test_only_ipykernels_of_this_python_are_forked():
    mine = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "x.json", "--log-level=50"]
    assert kernel_arguments(mine) == ["-f", "x.json", "--log-level=50"]
    assert kernel_arguments(["/usr/bin/env", *mine[1:]]) is None and kernel_arguments([sys.executable, "-m", "xeus", "-f", "x"]) is None


def test_a_process_known_by_its_number():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    other = Forked(child.pid)
    assert other.poll() is None
    with pytest.raises(subprocess.TimeoutExpired): other.wait(0.1)
    other.kill()
    child.wait()
    assert other.poll() == 0 == other.wait()
