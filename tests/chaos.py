"""Kill, starve and cut off a small study on a cluster, and look whether its results are those of an undisturbed run: `make chaos`.

A study with a teacher's draws, students, answers and a notebook runs on a scheduler and workers of its own. Each trial disturbs it in
one way, lets it end (the same command again, as its messages say), and then compares: items must be equal, students equal to the byte,
no draw stored twice, every error one clear line. By default a few minutes; `make chaos CHAOS=1000` for hours. Trials that need root (a
small disk, a read-only mount, network namespaces) say so where they may not run."""
import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import psutil
import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parent.parent
STUDY = dict(study="chaos", title="A small study to be disturbed", summaries=[],
             base={"task_args.n_train": 8, "task_args.n_test": 12, "teacher.pool": 2, "recipe.steps": 6, "recipe.batch": 4},
             cells=[dict(template="sample_count", over=dict(task=["arith"], student=["pocket/xs"]),
                         **{"with": dict(n_rationales=[1, 2], seeds=[0, 1], methods=["zero_shot_cot", "label_only"])})])
QUICK = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s",
         "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "60s", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "50",
         "DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "5s"}
SKEW = """import time
_t, _n = time.time, time.time_ns
time.time, time.time_ns = lambda: _t() + {by}, lambda: _n() + {by} * 10**9
"""
SLOW = """import os, time
_r, _f = os.replace, os.fsync
def replace(*a, **k):
    time.sleep(0.4)
    return _r(*a, **k)
def fsync(*a):
    time.sleep(0.1)
    return _f(*a)
os.replace, os.fsync = replace, fsync
"""
STALE = '''"""What a network file system may show: a folder as it was some seconds ago, until one changes it oneself."""
import os, sys, time
HOME, OLD_S = os.environ.get("COTSTUDY_OUTPUTS", "/nowhere"), 6.0
_stat, _scandir, _open, _mkdir, _replace, _unlink, _seen = os.stat, os.scandir, os.open, os.mkdir, os.replace, os.unlink, {}
def _known(kind, path, ask):
    path = os.fspath(path) if not isinstance(path, int) else ""
    if not isinstance(path, str) or not path.startswith(HOME): return ask()
    key, folder, now = (kind, path), os.path.dirname(path) if kind == "stat" else path.rstrip("/"), time.monotonic()
    if key in _seen and now - _seen[key][0] < OLD_S and _seen.get(("changed", folder), 0) < _seen[key][0]:
        said = _seen[key][1]
        if isinstance(said, OSError): raise said
        return said
    try: said = ask()
    except OSError as e: said = e
    _seen[key] = now, said
    if isinstance(said, OSError): raise said
    return said
class _Listed(list):
    def __enter__(self): return iter(self)
    def __exit__(self, *a): pass
    def close(self): pass
def _changes(path):
    if isinstance(path, (str, os.PathLike)): _seen[("changed", os.path.dirname(os.fspath(path)))] = time.monotonic() + 1e-4
def stat(path, *a, **k): return _stat(path, *a, **k) if k or a else _known("stat", path, lambda: _stat(path))
def scandir(path="."): return _known("list", path, lambda: _Listed(_scandir(path))) if str(path).startswith(HOME) else _scandir(path)
def open_(path, flags, *a, **k):
    if flags & os.O_CREAT: _changes(path)
    return _open(path, flags, *a, **k)
def mkdir(path, *a, **k):
    _changes(path)
    return _mkdir(path, *a, **k)
def replace(a, b, **k):
    _changes(b)
    return _replace(a, b, **k)
def unlink(path, *a, **k):
    _changes(path)
    return _unlink(path, *a, **k)
os.stat, os.scandir, os.open, os.mkdir, os.replace, os.unlink = stat, scandir, open_, mkdir, replace, unlink
'''


class Lab:
    "A scheduler, workers and drivers over one output folder."

    def __init__(self, folder: Path, n_workers: int = 2, host: str = "127.0.0.1"):
        self.folder, self.outputs, self.n_workers, self.host = folder, folder / "outputs", n_workers, host
        self.file, self.port, self.procs, self.said = folder / "chaos.yaml", random.randrange(20_000, 60_000), {}, []
        self.outputs.mkdir(parents=True, exist_ok=True)
        self.file.write_text(yaml.safe_dump(STUDY))

    def start(self, name: str, command: list[str], lines: str = "", before: tuple[str, ...] = ()) -> subprocess.Popen:
        "A process of the lab; `lines` are Python that it runs first, `before` what the command is run by."
        site = self.folder / f"site-{hashlib.sha256(lines.encode()).hexdigest()[:8]}"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(lines)
        path = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])
        env = os.environ | QUICK | dict(COTSTUDY_OUTPUTS=str(self.outputs), PYTHONPATH=path, OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1")
        log = open(self.folder / f"{name}.log", "ab")
        self.procs[name] = subprocess.Popen([*before, *command], cwd=ROOT / "nbs" / "studies", env=env, stdout=log, stderr=log,
                                            start_new_session=True)
        return self.procs[name]

    def scheduler(self, before: tuple[str, ...] = ()):
        code = "from distributed.cli.dask_scheduler import main; main()"
        where = ["--host", self.host, "--port", str(self.port), "--no-dashboard"]
        self.start("scheduler", [sys.executable, "-c", code, *where], before=before)

    def worker(self, i: int, lines: str = "", before: tuple[str, ...] = ()):
        code = "from distributed.cli.dask_worker import main; main()"
        self.start(f"nanny-{i}", [sys.executable, "-c", code, self.address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard",
                                  "--local-directory", str(self.folder / f"scratch-{i}"), "--death-timeout", "600"], lines, before)

    @property
    def address(self) -> str: return f"tcp://{self.host}:{self.port}"

    def driver(self, lines: str = "", name: str = "driver", cluster: str | None = None, before: tuple[str, ...] = ()) -> subprocess.Popen:
        code = "from cotstudy.cli import app; app()"
        where = ["--cluster", self.address if cluster is None else cluster] if cluster != "" else []
        return self.start(name, [sys.executable, "-c", code, "run", str(self.file), *where], lines, before)

    def victims(self) -> dict[str, list[psutil.Process]]:
        "The processes of each role that live now."
        found: dict[str, list[psutil.Process]] = dict(driver=[], nursery=[], kernel=[], worker=[], nanny=[], scheduler=[])
        for name, p in self.procs.items():
            if p.poll() is not None: continue
            role = name.split("-")[0]
            family: list[psutil.Process] = []
            with suppress(psutil.Error):
                found[role].append(psutil.Process(p.pid))
                family = psutil.Process(p.pid).children(recursive=True)
            for child in family:
                with suppress(psutil.Error):  # one that has just ended hides no other
                    line = " ".join(child.cmdline())
                    if "ipykernel_launcher" in line: found["kernel"].append(child)
                    elif "cotstudy.kernels" in line:  # a fork of the nursery is called as it is
                        found["kernel" if "cotstudy.kernels" in " ".join(child.parent().cmdline()) else "nursery"].append(child)
                    elif "spawn_main" in line: found["worker"].append(child)
        return found

    def told(self, name: str = "driver") -> str:
        log = self.folder / f"{name}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def close(self):
        for p in self.procs.values():
            if p.poll() is None:
                with suppress(psutil.Error, ProcessLookupError):
                    for c in psutil.Process(p.pid).children(recursive=True): c.kill()
                    p.kill()
                p.wait()


@contextmanager
def lab(folder: Path, **how):
    one = Lab(folder, **how)
    try: yield one
    finally: one.close()


def items_of(outputs: Path) -> dict[str, pd.DataFrame]:
    "All items, by the name of their evaluation."
    return {p.stem: pd.read_parquet(p).drop(columns="eval_id", errors="ignore").sort_values(["instance", "path"], ignore_index=True)
            for p in sorted((outputs / "chaos" / "items").glob("*.parquet"))}


def students_of(outputs: Path) -> dict[str, str]:
    return {p.parent.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (outputs / "store" / "students").glob("*/model.safetensors")}


def draws_of(outputs: Path) -> Counter:
    "How often each draw is stored, by prompt, index and text."
    rows = [r for p in (outputs / "store" / "draws").glob("*/part-*.parquet")
            for r in pq.read_table(p, columns=["prompt_id", "draw_index", "text"]).to_pylist()]
    return Counter((r["prompt_id"], r["draw_index"], r["text"]) for r in rows)


def twice(outputs: Path) -> int:
    "Draws that are stored more than once."
    draws = draws_of(outputs)
    return sum(draws.values()) - len({(prompt, k) for prompt, k, _ in draws})


def wrong(outputs: Path, true: tuple[dict, dict, set]) -> str:
    "What differs from the undisturbed run, in words; empty where nothing does."
    items, students, draws = items_of(outputs), students_of(outputs), draws_of(outputs).keys()
    if items.keys() != true[0].keys(): return f"{len(items.keys() ^ true[0].keys())} evaluations missing or more"
    if bad := [k for k in items if not items[k].equals(true[0][k])]: return f"{len(bad)} evaluations with other items"
    if students != true[1]: return "students with other weights"
    if lost := true[2] - draws: return f"{len(lost)} draws lost"
    return ""


class Table:
    "What was tried, and what came of it."
    def __init__(self): self.rows = []

    def add(self, trial: str, n: int, what: str, bad: str, doubled: int, seconds: float):
        self.rows.append(dict(trial=trial, times=n, happened=what, wrong=bad or "nothing", twice=doubled, seconds=round(seconds)))
        print(f"{trial}: {n} times, {what}; wrong: {bad or 'nothing'}; draws stored twice: {doubled}; {seconds:.0f} s", flush=True)

    def show(self) -> str:
        head = ["trial", "times", "happened", "wrong", "twice", "seconds"]
        lines = ["| " + " | ".join(head) + " |", "|" + " :-- |" * len(head)]
        return "\n".join(lines + ["| " + " | ".join(str(r[h]) for h in head) + " |" for r in self.rows])


def finish(one: Lab, how: dict, at_most_s: float, tries: int = 8) -> int:
    "Run the study to its end, again where it ended with an error; how many drivers it took."
    for k in range(1, tries + 1):
        p = one.driver(**how)
        with suppress(subprocess.TimeoutExpired): p.wait(at_most_s)
        if p.poll() == 0: return k
        p.kill()
        one.procs.pop("driver", None)
    raise SystemExit(f"the study did not end after {tries} drivers; the last said:\n{one.told()[-3000:]}")


def undisturbed(folder: Path, at_most_s: float) -> tuple[dict, dict, set]:
    "The results by a local run, without any cluster."
    with lab(folder) as one:
        finish(one, dict(cluster=""), at_most_s, tries=1)
        true = items_of(one.outputs), students_of(one.outputs), set(draws_of(one.outputs))
    if not all(true): raise SystemExit("the undisturbed run left nothing to compare with")
    return true


def kills(folder: Path, true, n: int, rng: random.Random, every_s: tuple[float, float], at_most_s: float, n_workers: int) -> tuple:
    "n SIGKILLs at random moments, of random roles, over as many runs of the study as that takes."
    killed, runs, bad, doubled = Counter(), 0, "", 0
    while sum(killed.values()) < n:
        runs += 1
        with lab(folder / f"run-{runs}", n_workers=n_workers) as one:
            one.scheduler()
            for i in range(n_workers): one.worker(i)
            p, began = one.driver(), time.time()
            while p.poll() != 0:
                if time.time() - began > at_most_s: raise SystemExit(f"a disturbed study did not end:\n{one.told()[-3000:]}")
                with suppress(subprocess.TimeoutExpired): p.wait(rng.uniform(*every_s))
                if p.poll() != 0 and sum(killed.values()) < n: killed.update(kill_one(one, rng, killed))
                revive(one)
                if p.poll() not in (None, 0): p = one.driver()
            here, two = wrong(one.outputs, true), twice(one.outputs)
            if not here and "Traceback" in one.told(): here = "a driver ended with a traceback"
            bad, doubled = bad or here, doubled + two
        print(f"run {runs}: {sum(killed.values())} of {n} killed, {time.time() - began:.0f} s; wrong: {here or 'nothing'}; "
              f"stored twice: {doubled}; {dict(killed)}", flush=True)
        if not (here or two): shutil.rmtree(one.folder)  # what went wrong is kept, to be looked at
    return killed, runs, bad, doubled


def kill_one(one: Lab, rng: random.Random, killed: Counter) -> list[str]:
    "SIGKILL for a process of a random role; every second time of the role that was met least, since kernels live for seconds only."
    alive = {role: ps for role, ps in one.victims().items() if ps}
    if not alive: return []
    role = min(sorted(alive), key=lambda r: killed[r]) if rng.random() < 0.5 else rng.choice(sorted(alive))
    victim = rng.choice(alive[role])
    try: victim.send_signal(signal.SIGKILL)
    except psutil.Error: return []
    time.sleep(0.5)  # not psutil's `wait`, after which nobody else learns how the process ended
    return [role]


def revive(one: Lab):
    "Start a scheduler and nannies again that have ended: what a supervisor, or SLURM, does."
    for name, p in list(one.procs.items()):
        if name.startswith("driver") or p.poll() is None: continue
        if name == "scheduler": one.scheduler()
        else: one.worker(int(name.split("-")[1]))


def disturbed(folder: Path, true, lines: dict[str, str], at_most_s: float) -> tuple[str, int, str]:
    "The study while its processes see the world in some other way."
    with lab(folder) as one:
        one.scheduler()
        for i in range(2): one.worker(i, lines.get(f"worker-{i}", lines.get("worker", "")))
        k = finish(one, dict(lines=lines.get("driver", "")), at_most_s)
        return wrong(one.outputs, true), twice(one.outputs), f"{k} driver" + "s" * (k > 1)


def two_drivers(folder: Path, true, at_most_s: float, lines: str = "") -> tuple[str, int, str]:
    "Two drivers on one study and one folder: one on a cluster, one without; `lines` are run first by the second."
    with lab(folder) as one:
        one.scheduler()
        for i in range(2): one.worker(i)
        both = [one.driver(name="driver"), one.driver(lines, name="driver-2", cluster="")]
        codes = [p.wait(at_most_s) for p in both]
        bad = wrong(one.outputs, true) or ("" if codes == [0, 0] else f"ended with {codes}: {one.told('driver-2')[-200:]}")
        return bad, twice(one.outputs), "both ended"


def disk(folder: Path, true, kind: str, at_most_s: float) -> tuple[str, int, str]:
    "The study on a disk that is full, or read-only, until it is mended."
    one = Lab(folder)
    size = "60k" if kind == "full" else "64m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(one.outputs)], check=True)
    try:
        if kind == "read-only": subprocess.run(["mount", "-o", "remount,ro", str(one.outputs)], check=True)
        code = one.driver(cluster="").wait(at_most_s)
        said = one.told().strip().splitlines()[-1:] or [""]
        clear = code == 1 and "Traceback" not in one.told()
        subprocess.run(["mount", "-o", "remount,rw,size=64m", str(one.outputs)], check=True)
        finish(one, dict(cluster=""), at_most_s)
        bad = wrong(one.outputs, true) or ("" if clear else f"not one clear line (exit {code}): {said[0][:120]}")
        return bad, twice(one.outputs), f"said: {said[0][:140]}"
    finally:
        one.close()
        subprocess.run(["umount", "-l", str(one.outputs)])


def partition(folder: Path, true, cut_s: float, at_most_s: float) -> tuple[str, int, str]:
    "Scheduler and driver on one host, a worker on another; the cable between them is pulled and put back."
    tag = f"{os.getpid() % 10_000}"
    def ip(*words): subprocess.run(["ip", *words], check=True)
    hosts, inside = (f"ca{tag}", f"cb{tag}"), lambda h: ("ip", "netns", "exec", h)
    try:
        for h in hosts: ip("netns", "add", h)
        ip("link", "add", f"va{tag}", "netns", hosts[0], "type", "veth", "peer", "name", f"vb{tag}", "netns", hosts[1])
        for h, v, a in zip(hosts, (f"va{tag}", f"vb{tag}"), ("10.77.0.1", "10.77.0.2")):
            ip("-n", h, "addr", "add", f"{a}/24", "dev", v)
            for dev in (v, "lo"): ip("-n", h, "link", "set", dev, "up")
        with lab(folder, host="10.77.0.1") as one:
            one.scheduler(before=inside(hosts[0]))
            one.worker(0, before=inside(hosts[0]))
            one.worker(1, before=inside(hosts[1]))
            p, cuts = one.driver(before=inside(hosts[0])), 0
            began = time.time()
            while p.poll() != 0:
                if time.time() - began > at_most_s: raise SystemExit(f"a study with a cut cable did not end:\n{one.told()[-3000:]}")
                with suppress(subprocess.TimeoutExpired): p.wait(cut_s)
                if p.poll() not in (None, 0): p = one.driver(before=inside(hosts[0]))
                if p.poll() is None and cuts < 3:
                    ip("-n", hosts[0], "link", "set", f"va{tag}", "down")
                    time.sleep(cut_s)
                    ip("-n", hosts[0], "link", "set", f"va{tag}", "up")
                    cuts += 1
            return wrong(one.outputs, true), twice(one.outputs), f"cut {cuts} times for {cut_s:g} s"
    finally:
        for h in hosts: subprocess.run(["ip", "netns", "del", h], stderr=subprocess.DEVNULL)


def may(*command: str) -> bool:
    "Does this machine permit that?"
    with suppress(OSError): return subprocess.run(command, capture_output=True).returncode == 0
    return False


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--kills", type=int, default=12)
    ask.add_argument("--workers", type=int, default=2)
    ask.add_argument("--every-s", type=float, nargs=2, default=(1.0, 12.0), help="seconds between two kills, from and to")
    ask.add_argument("--at-most-s", type=float, default=1800, help="a study may take so long")
    ask.add_argument("--only", default="", help="trials whose names hold one of these words, with commas between")
    ask.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    a = ask.parse_args()
    table, top, rng = Table(), Path(tempfile.mkdtemp(prefix="chaos-")), random.Random(a.seed)
    print(f"seed {a.seed}", flush=True)
    true = undisturbed(top / "calm", a.at_most_s)
    print(f"undisturbed: {len(true[0])} evaluations, {len(true[1])} students", flush=True)

    def tried(name: str, n: int, what, permitted: bool = True):
        if not any(word in name for word in a.only.split(",")): return
        began = time.time()
        if not permitted: return table.add(name, 0, "not permitted on this machine", "", 0, 0)
        bad, doubled, happened = what(top / name.replace(" ", "-"))
        table.add(name, n, happened, bad, doubled, time.time() - began)

    def killing(folder):
        killed, runs, bad, doubled = kills(folder, true, a.kills, rng, tuple(a.every_s), a.at_most_s, a.workers)
        return bad, doubled, f"{', '.join(f'{k} {role}' for role, k in sorted(killed.items()))} killed in {runs} runs"
    root = may("unshare", "-m", "true") and os.geteuid() == 0
    tried("cluster", 1, lambda f: disturbed(f, true, {}, a.at_most_s))
    tried("kills", a.kills, killing)
    tried("two drivers", 1, lambda f: two_drivers(f, true, a.at_most_s))
    tried("clocks an hour apart", 1, lambda f: two_drivers(f, true, a.at_most_s, SKEW.format(by=3700)))
    tried("slow folder", 1, lambda f: disturbed(f, true, dict(worker=SLOW, driver=SLOW), a.at_most_s))
    tried("stale folder", 1, lambda f: disturbed(f, true, dict(worker=STALE, driver=STALE), a.at_most_s))
    tried("full disk", 1, lambda f: disk(f, true, "full", a.at_most_s), root)
    tried("read-only folder", 1, lambda f: disk(f, true, "read-only", a.at_most_s), root)
    tried("partition", 1, lambda f: partition(f, true, 25.0, a.at_most_s), root and may("unshare", "-n", "true"))
    print("\n" + table.show())
    if not table.rows: raise SystemExit(f"no trial is called {a.only!r}")
    failed = any(r["wrong"] != "nothing" or r["twice"] for r in table.rows)
    if failed: print(f"what went wrong is kept in {top}")
    else: shutil.rmtree(top, ignore_errors=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
