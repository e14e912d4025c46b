"""Everything is declared in settings.ini."""
from configparser import ConfigParser
from pathlib import Path
import shlex
import setuptools

config = ConfigParser(delimiters=["="])
config.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]


def reqs(key): return shlex.split(cfg.get(key, ""))


extras = {k.removesuffix("_requirements"): reqs(k) for k in cfg if k.endswith("_requirements")}

setuptools.setup(
    name=cfg["lib_name"], version=cfg["version"], description=cfg["description"],
    author=cfg["author"], author_email=cfg["author_email"], keywords=cfg["keywords"],
    license="Apache-2.0", url=cfg["git_url"],
    long_description=Path("README.md").read_text(encoding="utf-8"), long_description_content_type="text/markdown",
    packages=setuptools.find_packages(include=[cfg["lib_path"], cfg["lib_path"] + ".*"]),
    include_package_data=True,
    classifiers=["Programming Language :: Python :: 3", "Framework :: Jupyter", "Intended Audience :: Science/Research"],
    project_urls={"Source": cfg["git_url"]},
    python_requires=">=" + cfg["min_python"],
    install_requires=reqs("requirements"), extras_require=extras,
    entry_points={"console_scripts": cfg.get("console_scripts", "").split("\n"),
                  "nbdev": [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]},
)
