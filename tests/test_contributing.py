"""CONTRIBUTING.md is true: every Python block of it is executed, in order, in an empty folder."""
import re
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

from cotstudy import analyses, filters, measures, methods, procedural

PAGE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text("utf-8")
TABLES = (analyses.ANALYSES, filters.FILTERS, measures.MEASURES, methods.METHODS, procedural.FAMILIES)


def test_every_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path / "outputs"))
    blocks, before, names = re.findall(r"```python\n(.*?)```", PAGE, re.S), [dict(t) for t in TABLES], {}
    assert len(blocks) >= 8
    try:
        for block in blocks: exec(compile(block, "CONTRIBUTING.md", "exec"), names)
        added = [sorted(k for k in t if t[k] is not b.get(k)) for t, b in zip(TABLES, before)]  # another test may have left one
        assert added == [["learning_rate"], ["middling"], ["hedged"], ["answer_first"], ["double"]]
        assert names["found"].rows.n_kept.notna().any() and (names["found"].rows.filters == "correct middling:1").any()
    finally:
        for table, old in zip(TABLES, before):
            table.clear()
            table.update(old)
        plt.close("all")


def test_it_names_a_section_for_each_kind_of_thing():
    sections = set(re.findall(r"^## (.*)$", PAGE, re.M))
    assert {"A task", "A filter", "A measure", "A method", "A figure", "An analysis", "A claim"} <= sections
    for name in re.findall(r"`(nbs/[\w/]+\.ipynb)`", PAGE):
        assert (Path(__file__).parent.parent / name).exists(), name
