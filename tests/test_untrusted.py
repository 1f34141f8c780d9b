"""What comes from outside executes nothing, takes no more than there is, and reads no other file:
run folders, weights, tables, workbooks, archives, options, names."""

import io
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from dr_cli import machine, runs
from dr_cli.cli import inputs
from dr_cli.errors import DrError, UsageError
from dr_cli.labels import reading, tables
from dr_cli.network import weights
from dr_cli.network.resnet import build_resnet
from dr_cli.photographs import packed
from dr_cli.photographs.crop import Preprocessing
from dr_cli.runs import Run
from dr_cli.training import saved
from dr_cli.training.config import read_config
from tests.builders.photographs import picture
from tests.builders.program import dr
from tests.builders.runs import edit, replace_in, write_pictures, write_run

EVIL = "a\x1b[2J\u202egnp.\u2066<img src=x onerror=alert(1)>\x9b1m"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "runs" / "one")
    write_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return build_resnet("resnet18")


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def refused(done, says: str, code: int = 2) -> None:
    """One line, nothing on stdout, the right exit code."""
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


# --- what would run code


def test_pickles_are_never_run(run, network, tmp_path):
    mark = tmp_path / "mark"
    bomb = tmp_path / "bomb.pth"
    torch.save({"state_dict": network.state_dict(), "extra": Bomb(mark)}, bomb)
    with pytest.raises(UsageError, match="more than numbers"):
        weights.load_start(network, bomb)
    bomb.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(UsageError, match="more than numbers"):
        weights.load_start(network, bomb)
    torch.save({"rows": [], "extra": Bomb(mark)}, run / "last.pt")
    with pytest.raises(UsageError, match="not as dr train wrote it"):
        saved.read_state(Run(run))
    objects = np.array([Bomb(mark)], object)
    np.savez(tmp_path / "set.npz", train_images=objects, train_labels=objects)
    with pytest.raises(UsageError, match="cannot be read"):
        packed.array(tmp_path / "set.npz", "train_labels")
    np.savez(run / "hashes.npz", hashes=objects, version=1)
    with pytest.raises(UsageError, match="cannot be read"):
        Run(run).hashes(1)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists(), "a bomb that would not have gone off"


@pytest.mark.parametrize(
    "header",
    [
        {"fc.bias": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
        {"fc.bias": {"dtype": "F32", "shape": [5], "data_offsets": [0, 10**9]}},
        {"fc.bias": {"dtype": "F32", "shape": [-5], "data_offsets": [0, 20]}},
        {"__metadata__": {"arch": "[" * 100_000}},
    ],
)
def test_a_safetensors_header_that_lies(tmp_path, network, header):
    text = json.dumps(header).encode()
    file = tmp_path / "model.safetensors"
    for size in (len(text), 2**63, 0):
        file.write_bytes(size.to_bytes(8, "little") + text + bytes(20))
        with pytest.raises(UsageError, match=r"no whole safetensors file|is no grader"):
            runs.read_record(file)
        with pytest.raises(UsageError, match="damaged"):
            weights.load_start(network, file)


def test_a_picture_that_is_also_something_else_keeps_none_of_it(run, network, tmp_path):
    """What `predict` shows of a photograph is drawn anew: nothing of its file comes along."""
    record = runs.read_record(run)
    Run(run).save_model(network.state_dict(), record)
    script = b"<script>alert(1)</script>"
    exif = Image.Exif()
    exif[0x010E] = script.decode()
    picture(1, size=96).save(kept := io.BytesIO(), "JPEG", comment=script, exif=exif)
    zipfile.ZipFile(kept, "a").writestr("evil.html", script)
    (tmp_path / "both.jpg").write_bytes(kept.getvalue() + script)
    (tmp_path / "page.png").write_bytes(b"<!DOCTYPE html>" + script)
    (tmp_path / "eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    names = [tmp_path / name for name in ("both.jpg", "page.png", "eps.jpg")]
    ask = ("--run", run, "--format", "json", "--device", "cpu", "--explain", tmp_path / "heat")
    done = dr("predict", *names, *ask)
    good, *bad = json.loads(done.stdout)
    assert good["error"] is None
    assert all("not an image" in row["error"] for row in bad)
    drawn = Path(good["heatmap"]).read_bytes()
    assert script not in drawn
    assert b"evil" not in drawn


# --- what would take more than there is


def test_a_record_of_a_gigabyte_or_a_million_levels(run):
    config = run / "config.json"
    with config.open("r+b") as file:
        file.truncate(10**9)
    refused(dr("report", run), "too large, 1,000 MB")
    for text in ("[" * 10**6, '{"a":' * 10**6, '{"schema": 1, "data": ' + "[" * 900 + "]" * 900):
        config.write_text(text, encoding="utf-8")
        refused(dr("eval", run), "config.json")
        refused(dr("train", "--resume", run), "config.json")


def test_an_archive_that_unpacks_to_more_than_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: 10**6)
    bomb = tmp_path / "retinamnist.npz"
    images = np.zeros((100, 64, 64, 3), np.uint8)
    np.savez_compressed(bomb, train_images=images, train_labels=np.zeros(100, np.int8))
    assert bomb.stat().st_size < 10_000
    with pytest.raises(UsageError, match="GB are free"):
        packed.array(bomb, "train_images")
    labels = reading.read(tmp_path)  # grades alone are few
    with pytest.raises(DrError, match="GB are free"):
        packed.read(tmp_path, labels.table["path"][0])


def test_a_header_that_tells_of_more_than_the_file_holds(tmp_path):
    lie = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**15, 2)}
    np.lib.format.write_array_header_1_0(lie, header)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("train_images.npy", lie.getvalue())
    with pytest.raises(UsageError, match=r"a\.npz: array 'train_images'"):
        packed.array(tmp_path / "a.npz", "train_images")


SPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def workbook(path: Path, sheet: str, start: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        body = f'<worksheet xmlns="{SPACE}"><sheetData>{sheet}</sheetData></worksheet>'
        book.writestr("xl/worksheets/sheet1.xml", start + body)
    return path


def test_a_workbook_has_no_entities_no_far_cells_and_an_end(tmp_path, monkeypatch):
    cell = '<row r="1"><c r="{}" t="inlineStr"><is><t>{}</t></is></c></row>'
    grows = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 9))
    laughs = f'<!DOCTYPE x [<!ENTITY a0 "ha">{grows}]>'
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    outside = f'<!DOCTYPE x [<!ENTITY a8 SYSTEM "file://{tmp_path / "secret"}">]>'
    inside = '<!DOCTYPE x [<!ENTITY a8 "small">]>'
    for start in (laughs, outside, inside):
        book = workbook(tmp_path / "a.xlsx", cell.format("A1", "&a8;"), start)
        with pytest.raises(UsageError, match="not a workbook that can be read"):
            tables.read(book)
    for far in ("XFD1048576", "ZZZ9999999", "ZZZZZZZZ1", "A" + "9" * 30):
        book = workbook(tmp_path / "a.xlsx", cell.format("A1", "x") + cell.format(far, "y"))
        with pytest.raises(UsageError, match="not a workbook that can be read"):
            tables.read(book)
    monkeypatch.setattr(tables, "_MOST_XML", 10_000)
    book = workbook(tmp_path / "a.xlsx", cell.format("A1", "x" * 100_000))
    assert book.stat().st_size < 1000
    with pytest.raises(UsageError, match="not a workbook that can be read"):
        tables.read(book)


def test_a_table_with_one_line_of_a_million_cells(tmp_path):
    lines = ["image,level", *(f"{k},0" for k in range(10_000)), "," * 10**6]
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UsageError, match=r"row 10002: 1,000,001 cells, where most have few"):
        tables.read(tmp_path / "labels.csv")


@pytest.mark.parametrize("bomb", ["a = " + "[" * 10**5, "epochs = " + "9" * 10**4, "a" * 2 * 10**6])
def test_a_file_of_options_that_grows(tmp_path, bomb):
    file = tmp_path / "options.toml"
    file.write_text(bomb, encoding="utf-8")
    with pytest.raises(UsageError, match=r"is not TOML|too large"):
        read_config(file)
    refused(dr("train", tmp_path, "--config", file), "--config")


# --- what would reach elsewhere


def test_nothing_is_written_through_a_link_that_leads_out_of_a_run(run, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine", encoding="utf-8")
    for name in ("log.txt", "fold-1"):
        (run / name).symlink_to(mine)
        refused(dr("train", "--resume", run), f"{name} is a link that leads out of the run")
        (run / name).unlink()
    assert mine.read_text(encoding="utf-8") == "mine"
    (run / "log.txt").symlink_to(run / "log-of-today.txt")
    with Run(run).hold():
        pass


@pytest.mark.timeout(60)  # a pipe would be waited for
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop"])
def test_no_pipe_or_device_is_read_for_a_file(run, tmp_path, kind):
    make = {
        "pipe": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "folder": Path.mkdir,
        "loop": lambda path: path.symlink_to(path),
    }[kind]
    data = tmp_path / "data"
    data.mkdir()
    make(data / "labels.csv")
    refused(dr("train", data, "--dry-run", "--quiet"), "labels.csv" if kind != "folder" else "data")
    refused(dr("train", data / "labels.csv", "--quiet"), "labels.csv")
    refused(dr("train", data, "--config", data / "labels.csv"), "labels.csv")
    if kind in ("pipe", "device"):
        refused(dr("predict", "a.jpg", "--run", run, "--resume", data / "labels.csv"), "labels.csv")
    if kind == "device":  # what a shell's <(…) gives is a pipe
        refused(dr("eval", "--predictions", data / "labels.csv"), "labels.csv is a device")
    if kind != "loop":  # which a file takes the place of
        refused(dr("report", run, "--quiet", "--out", data / "labels.csv"), "it is no file", 1)
        assert not (data / "labels.csv").is_file()
    for name in ("config.json", "metrics.csv", "splits.csv", "pictures.json"):
        kept = (run / name).read_bytes() if (run / name).is_file() else b""
        (run / name).unlink(missing_ok=True)
        make(run / name)
        done = dr("report", run, "--format", "json", "--quiet")
        assert done.exit_code in (0, 2), done.output
        (run / name).rmdir() if kind == "folder" else (run / name).unlink()
        (run / name).write_bytes(kept)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no such device")
def test_a_stream_without_an_end_is_no_list_of_paths(monkeypatch):
    with open("/dev/zero", "rb", buffering=0) as zeros:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(zeros)))
        with pytest.raises(DrError, match="no list of paths"):
            next(inputs.list_photographs(["-"]))


# --- names: shown, never obeyed


def no_control(text: str) -> bool:
    return not any(c in text for c in "\x1b\x9b\u202e\u2066\x07")


def test_a_terminal_shows_a_name_and_does_not_obey_it(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = EVIL.replace("/", "")
    done = dr("eval", evil)
    refused(done, r"a\x1b[2J\u202egnp.\u2066<img src=x onerror=alert(1)>\x9b1m: no such folder")
    assert no_control(done.stderr)
    moved = run.rename(run.parent / evil)
    with edit(moved / "summary.json") as told:
        told["test"]["warnings"] = [EVIL]
    replace_in(moved / "predictions-test.csv", "patient0test", EVIL)
    for ask in (("--format", "table"), ("--by", "patient", "--format", "table")):
        done = dr("eval", moved, "--bootstrap", 0, *ask)
        assert no_control(done.output)
    done = dr("report", moved.parent)
    assert done.exit_code == 0, done.output
    assert no_control(done.stderr)
    refused(dr("predict", "x.png", "--run", "a\nb: done\nc"), r"a\nb: done\nc: no such file")


def test_a_page_shows_a_name_and_does_not_obey_it(run):
    moved = run.rename(run.parent / EVIL.replace("/", ""))
    write_pictures(moved, path=EVIL)
    with edit(moved / "summary.json") as told:
        told["test"]["warnings"] = [EVIL]
    page = moved.parent / "page.html"
    assert dr("report", moved, "--out", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert no_control(text)
    assert "<img src=x" not in text
    assert r"a\x1b[2J\u202egnp.\u2066&lt;img src=x onerror=alert(1)&gt;\x9b1m" in text
    told = dr("report", moved, "--format", "markdown").stdout
    assert no_control(told)


# --- records that dr did not write so


def test_a_record_with_half_a_letter_or_no_number(run):
    with edit(run / "config.json") as config:
        config["options"]["loss"] = "X"
    for text in (r"\ud800", "c\\udfffe"):
        replace_in(run / "config.json", '"X"', f'"{text}"')
        refused(dr("report", run), "config.json cannot be read")
        replace_in(run / "config.json", f'"{text}"', '"X"')
    replace_in(run / "summary.json", '"mean_absolute_error": {', '"other": 1e999, "x": {')
    done = dr("report", run, "--format", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["runs"][0]["record"]["other"] is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parameters", [1]), ("multiply_adds", "many"), ("threads", None), ("device", {}),
        ("versions", {"torch": []}), ("start", "x"), ("start", {"test": "x"}), ("fold", "one"),
        ("member", 3), ("drawn_start", "x"), ("preprocessing", [1]),
    ],
)  # fmt: skip
def test_a_config_whose_numbers_are_none(run, name, value):
    with edit(run / "config.json") as config:
        config[name] = value
    refused(dr("report", run), "config.json is not as dr train wrote it")


@pytest.mark.parametrize("part", ["qwk", "referable", "calibration", "per_grade", "confusion"])
def test_a_broken_summary_costs_its_own_run_alone(run, part):
    write_run(run.parent / "two", seed=1)
    with edit(run / "summary.json") as told:
        for split in ("val", "test"):
            old = told[split][part]
            told[split][part] = [7] * 5 if isinstance(old, list) else {key: [7] for key in old}
    done = dr("report", run.parent, "--format", "json")
    assert done.exit_code == 1, done.output
    assert [one["name"] for one in json.loads(done.stdout)["runs"]] == ["two"]
    assert "one is left out: " in done.stderr


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [("grade", ",1,", ",one,"), ("grade", ",1,", ",,"), ("split", ",train,", ",trian,")],
)
def test_a_cell_of_splits_that_is_none(run, column, old, new):
    replace_in(run / "splits.csv", old, new)
    with pytest.raises(UsageError, match=rf"splits.csv, row \d+, column {column}: "):
        Run(run).splits()
    refused(dr("eval", run), "is not as dr train writes it")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", "hot"), ("temperature", -1), ("decision", {"kind": "thresholds"}),
        ("decision", {"kind": "thresholds", "thresholds": [1, 2]}),
        ("operating_point", {"threshold": [], "rule": "x"}), ("preprocessing", {"size": "x"}),
        ("preprocessing", {"size": 10**9}), ("preprocessing", {"size": 32, "std": [0, 1, 1]}),
        ("preprocessing", {"size": 32, "mean": [1]}), ("arch", []), ("schema", 2),
        ("trained_on", 7),
    ],
)  # fmt: skip
def test_weights_whose_record_is_none(run, key, value):
    file = run / "model.safetensors"
    with safe_open(file, "pt") as kept:
        told = kept.metadata() | {key: json.dumps(value)}
    save_file({"fc.bias": torch.zeros(5)}, file, told)
    with pytest.raises(DrError):
        Preprocessing.from_dict(runs.read_record(run).preprocessing)


@pytest.mark.parametrize(
    ("old", "new"), [(",1,patient", ",,patient"), (",1,patient", ",9,patient")]
)
def test_a_broken_prediction_is_named_wherever_it_is_read(run, old, new):
    """Those of validation are read to choose thresholds anew."""
    replace_in(run / "predictions-val.csv", old, new)
    done = dr("eval", run, "--decision", "accuracy", "--bootstrap", 0)
    refused(done, "predictions-val.csv, line ")


# --- lines that a stray double quote would swallow


@pytest.mark.parametrize(
    ("text", "row", "column"),
    [
        ('image,level\na,0\n"b,1\nc,2\nd",3\n', 3, "image"),
        ('image,level,patient\na,0,"p\nb,1,q\nc,2,"r\nd,3,s\n', 2, "patient"),
    ],
)
def test_no_row_is_swallowed_by_a_stray_quote(tmp_path, text, row, column):
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=rf"row {row}, column '{column}': more than one line"):
        reading.read(tmp_path)


def test_a_remark_of_two_lines_is_no_row(tmp_path):
    text = 'image,level,remark\na,0,"soft exudates, many\nand a, b, c"\nb,1,none\n'
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    assert len(reading.read(tmp_path).table) == 2


def test_no_cell_is_left_out_of_a_row_of_several_lines(tmp_path):
    """Wider than any of its lines: pandas warned, and left the rest of it out."""
    (tmp_path / "labels.csv").write_text('a,1,"x\ny",2,3\nb,1,"x\ny",2,3\n', encoding="utf-8")
    with pytest.raises(UsageError, match="a row of several lines, in quotes, has more cells"):
        tables.read(tmp_path / "labels.csv", header=False)


def test_no_prediction_is_swallowed_by_a_stray_quote(tmp_path):
    table = tmp_path / "theirs.csv"
    table.write_text('path,grade,predicted\n"a,0,0\nb,1,1\nc",2,2\nd,3,3\n', encoding="utf-8")
    refused(dr("eval", "--predictions", table), "line 2, column path: a cell of several rows")
