"""What is built, and that it works where it is installed; `import dr_cli` takes nothing heavy."""

import email
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import dr_cli
from dr_cli.cli import app
from tests.builders.runs import write_run

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGE = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "dr_cli").rglob("*")
    if path.is_file() and path.suffix in {".py", ".jinja", ".css", ".js", ".typed", ".npz"}
}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and the wheel built from it, without a network."""
    pytest.importorskip("hatchling", reason="hatchling comes with the test extra")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return next(dist.glob("*.whl"))


def test_sdist_holds_the_project_and_nothing_else(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= PACKAGE | {"README.md", "LICENSE", "pyproject.toml", "examples/quickstart.sh"}
    assert {name.partition("/")[0] for name in names} <= {
        "dr_cli", "tests", "examples", "README.md", "LICENSE", "pyproject.toml", "PKG-INFO",
        ".gitignore",
    }  # fmt: skip
    assert not [name for name in names if "__pycache__" in name]


def test_wheel_holds_templates_styles_and_py_typed(wheel):
    kinds = (
        "py.typed", "report/page.html.jinja", "report/style.css", "report/script.js",
        "photographs/quality.npz",
    )  # fmt: skip
    assert {f"dr_cli/{kind}" for kind in kinds} < PACKAGE
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == PACKAGE


def test_metadata(wheel):
    from trove_classifiers import classifiers

    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        held = next(name for name in names if name.endswith("/METADATA"))
        told = email.message_from_bytes(archive.read(held))
        entry = archive.read(held.replace("METADATA", "entry_points.txt")).decode()
    assert told["Version"] == dr_cli.__version__
    assert told["License-Expression"] == "MIT"
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert told["Requires-Python"] == ">=3.11"
    assert set(told.get_all("Classifier")) == set(PROJECT["classifiers"]) <= set(classifiers)
    assert told["Description-Content-Type"] == "text/markdown"
    assert entry.split() == ["[console_scripts]", "dr", "=", "dr_cli.cli:main"]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of an environment that has the dependencies and, alone, the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    paths = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", vars=paths))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet",
         "--no-deps", "--no-index", "--ignore-installed", wheel], check=True,
    )  # fmt: skip
    return scripts


def test_the_wheel_works_elsewhere(installed, tmp_path):
    def run(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command], cwd=tmp_path, capture_output=True, text=True
        )

    where = run(installed / "python", "-c", "import dr_cli; print(dr_cli.__file__)")
    assert Path(where.stdout).is_relative_to(installed.parent)
    assert run(installed / "dr", "--version").stdout == f"dr {dr_cli.__version__}\n"
    write_run(tmp_path / "runs" / "one", seed=0, qwk=0.6)
    done = run(installed / "dr", "report", "runs")
    assert done.stdout.strip() == str(Path("runs", "report.html")), done.stderr
    page = (tmp_path / "runs" / "report.html").read_text(encoding="utf-8")
    assert "</html>" in page
    assert "--" in page.split("<style>")[1].split("</style>")[0]  # the style sheet is in it


def test_import_takes_the_standard_library_alone():
    code = (
        "import sys; before = set(sys.modules); import dr_cli\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names) - {'dr_cli'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_version():
    assert CliRunner().invoke(app, ["--version"]).stdout == f"dr {dr_cli.__version__}\n"


def test_the_shell_completes():
    told = {"_DR_COMPLETE": "complete_bash", "COMP_WORDS": "dr tr", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "dr_cli"], env=os.environ | told, capture_output=True, text=True
    )
    assert done.stdout.split() == ["train"], done.stderr


def test_the_lock_is_what_the_project_asks_for_and_names_no_host():
    """Offered beside the floors: each package once, with hashes, at least as new as its floor."""
    from packaging.requirements import Requirement

    text = (ROOT / "examples" / "quickstart.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "index" not in text.replace("--no-emit-index-url", "")
    locked = dict(re.findall(r"(?m)^([a-z0-9.-]+)==(\S+) \\$", text))
    assert len(locked) == text.count("==")
    assert all("--hash=sha256:" in part for part in re.split(r"(?m)^\S+==", text)[1:])
    for wanted in map(Requirement, PROJECT["dependencies"]):
        assert wanted.specifier.contains(locked[wanted.name]), wanted


def test_each_floor_is_one_version_that_the_lowest_suite_can_install():
    """tests/lowest.sh takes ">=1.2" for "==1.2"."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for wanted in [one for group in groups for one in group if not one.startswith("dr-cli")]:
        assert re.fullmatch(r"[\w-]+>=\d[\d.]*\d(,<\d+)?", wanted), wanted
