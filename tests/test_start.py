"""A command that only counts files must not wait for a network library, and a bench row keeps the seconds."""
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "scipy.stats", "statsmodels", "matplotlib.pyplot", "seaborn", "papermill", "nbformat",
         "nbconvert", "sklearn")
TOLD = """
import sys
from cotstudy.cli import app
sys.argv = ["cotstudy", *sys.argv[1:]]
try: app()
except SystemExit as e: assert not e.code, e.code
print("\\nLOADED", *(m for m in {heavy!r} if m in sys.modules))
"""


@pytest.mark.parametrize("command", [["--help"], ["status", "smoke"], ["status", "quick", "--json"], ["tasks", "coin"]], ids=lambda c: c[0])
def test_a_small_command_loads_nothing_heavy(command, tmp_path):
    env = os.environ | dict(COTSTUDY_OUTPUTS=str(tmp_path / "outputs"), COTSTUDY_CACHE=str(tmp_path / "cache"))
    env.pop("COTSTUDY_DATA", None)
    told = TOLD.format(heavy=HEAVY)
    said = subprocess.run([sys.executable, "-c", told, *command], capture_output=True, text=True, env=env)
    assert said.returncode == 0, said.stderr[-2000:]
    loaded = said.stdout.rpartition("LOADED")[2].split()
    assert loaded == [], f"{' '.join(command)} imports {loaded}"


def test_the_list_of_heavy_libraries_is_seen(tmp_path):
    told = TOLD.format(heavy=HEAVY).replace("from cotstudy.cli import app", "import nbformat\nfrom cotstudy.cli import app")
    said = subprocess.run([sys.executable, "-c", told, "--help"], capture_output=True, text=True)
    assert "nbformat" in said.stdout.rpartition("LOADED")[2].split()
