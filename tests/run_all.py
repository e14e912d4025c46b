"""What `make test` does: the tree must not change under export, clean and README; then lint, the notebooks, the smoke study, pytest."""
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def call(title: str, *command: str, env: dict | None = None) -> None:
    print(f"\n== {title}", flush=True)
    began = time.time()
    code = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, env=os.environ | (env or {})).returncode
    if command[0] == "pytest" and code == 5:
        sys.exit("pytest found no tests")
    if code:
        sys.exit(f"{title}: `{' '.join(command)}` ended with exit status {code}")
    print(f"   {time.time() - began:.0f} s", flush=True)


def tree() -> str:
    return subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def main() -> None:
    one_thread = dict(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    before = tree()
    call("export", "nbdev_export")
    call("clean", "nbdev_clean")
    call("README", "cotstudy", "readme")
    if (after := tree()) != before:
        sys.exit("export, clean or README changed the tree; run `make export readme` and commit:\n" + after)
    call("lint", "ruff", "check", "cotstudy", "tests")
    with tempfile.TemporaryDirectory() as outputs:
        env = one_thread | dict(COTSTUDY_OUTPUTS=outputs)
        call("notebooks of the book", "nbdev_test", "--n_workers", "2", "--skip_folder_re", "studies", env=env)
        call("study templates", "cotstudy", "run", "smoke", env=env)
    if not os.environ.get("COTSTUDY_DATA"):
        print("\nCOTSTUDY_DATA is not set: tests on the papers' own data are skipped (they say so below)")
    call("pytest", "pytest", "-q", "-rs", "-n", "2", "--dist", "worksteal", "tests", env=one_thread)


if __name__ == "__main__":
    main()
