"""Any table, however it was written: read right, or refused with file, row and column."""

import csv
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr_cli.errors import DrError, UsageError
from dr_cli.labels import layouts, reading, tables
from dr_cli.labels.columns import COLUMNS, REPEATED, UNGRADED, Columns
from dr_cli.labels.matching import CONTESTED
from tests.builders.listener import Listener
from tests.builders.tables import images, put, rows, workbook


def table(root: Path, text: str | bytes, *names: str, file: str = "labels.csv") -> Path:
    return put(root, {file: text, **images(*names)})


def refusal(root: Path, **options: object) -> str:
    """The one line that refuses a data set (exit code 2)."""
    with pytest.raises(UsageError) as error:
        reading.read(root, **options)  # type: ignore[arg-type]
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


# --- how a table may be written -----------------------------------------------------------------

AB = [("a.png", 0, None), ("b.png", 4, None)]


@pytest.mark.parametrize(
    "text",
    [
        "image,grade\na,0\nb,4\n",
        "image,grade\r\na,0\r\nb,4\r\n",
        "image,grade\ra,0\rb,4\r",
        "image,grade\na,0\nb,4",
        "\ufeffimage,grade\na,0\nb,4\n",
        "image,grade\n\na,0\n\n\nb,4\n\n",
        " image , grade \n a , 0 \n b , 4 \n",
        "image,grade,,,\na,0,,,\nb,4,,,\n",
        "image,grade\na,0,\nb,4,\n",
        '"image","grade"\n"a","0"\n"b","4"\n',
        "image;grade\na;0\nb;4\n",
        "image|grade\na|0\nb|4\n",
        "image\tgrade\na\t0\nb\t4\n",
        "grade,image\n0,a\n4,b\n",
        ",image,grade\n0,a,0\n1,b,4\n",
        "image,grade\na.png,0.0\nb.PNG,4.0\n",
        "image,grade\na,No DR\nb,Proliferative DR\n",
        "image,grade\na.jpeg,0\nb.tif,4\n",
        "image,grade\nphotos/a.png,0\nphotos/b.png,4\n",
        "image,grade\nelsewhere/a.png,0\nelsewhere/b.png,4\n",
        "image,grade\nphotos\\a.png,0\n.\\photos\\b.png,4\n",
        "image,grade\nD:\\set\\photos\\a.png,0\nD:\\set\\photos\\b.png,4\n",
        "image,grade\n/kaggle/input/photos/a.png,0\n/kaggle/input/photos/b.png,4\n",
        "image,grade\n./photos//a.png,0\n./photos//b.png,4\n",
        "image,grade\nA,0\nB,4\n",
        "a.png,0\nb.png,4\n",
        "Image Name,DR-Grade\na,0\nb,4\n",
        "image,grade\na,0\nb,4\n".encode("utf-16"),
        "image,grade,name of clinic\na,0,Köln\nb,4,Zürich\n".encode("cp1252"),
    ],
)
def test_however_it_was_written(tmp_path: Path, text: str | bytes) -> None:
    table(tmp_path, text, "photos/a.png", "photos/b.png")
    expected = [(f"photos/{path}", *rest) for path, *rest in AB]
    assert rows(reading.read(tmp_path)) == expected


def test_tsv_txt_and_workbook(tmp_path: Path) -> None:
    for file, content in {
        "labels.tsv": "image\tgrade\na\t0\nb\t4\n",
        "labels.txt": "a.png 0\nb.png 4\n",
        "labels.xlsx": workbook(["image", "grade"], ["a", 0], ["b", 4]),
    }.items():
        root = table(tmp_path / file, content, "a.png", "b.png", file=file)
        assert rows(reading.read(root)) == AB
        assert rows(reading.read(root / file)) == AB, "DATA may be the table itself"


def test_extra_columns_stay_as_they_came(tmp_path: Path) -> None:
    table(
        tmp_path, "image,grade,reason,path,camera,\na,0,old,p,X1,\nb,4,,q,007,\n", "a.png", "b.png"
    )
    data = reading.read(tmp_path)
    assert data.extra_columns == ("reason_", "path_", "camera")
    assert data.table["camera"].tolist() == ["X1", "007"]
    assert data.table["path_"].tolist() == ["p", "q"]
    assert list(data.table.columns) == [*COLUMNS, "reason_", "path_", "camera"]


def test_columns_have_their_types(tmp_path: Path) -> None:
    table(tmp_path, "image,grade\n10_left,0\nx,4\n", "10_left.png")
    data = reading.read(tmp_path).table
    assert data["grade"].dtype == np.int8
    assert data.index.equals(pd.RangeIndex(2))
    assert data["patient"].tolist() == ["10", None]
    assert data["eye"].tolist() == ["left", None]
    assert data["split"].tolist() == [None, None]
    assert data["reason"].tolist() == [None, reading.MISSING]
    assert data["path"].tolist() == ["10_left.png", "x"], "a missing one as the table names it"


@pytest.mark.parametrize(
    ("name", "patient", "eye"),
    [
        ("10_left", "10", "left"),
        ("10_right", "10", "right"),
        ("7_L", "7", "left"),
        ("7-r", "7", "right"),
        ("p 3 OD", "p 3", "right"),
        ("p3_os", "p3", "left"),
        ("10_LEFT", "10", "left"),
        ("left", None, None),
        ("10left", None, None),
        ("vessel", None, None),
        ("20051020_43808_0100_PP", None, None),
    ],
)
def test_patient_and_eye_from_a_name(tmp_path: Path, name: str, patient: str, eye: str) -> None:
    table(tmp_path, f"image,grade\n{name},0\n", f"{name}.jpg")
    row = reading.read(tmp_path).table.iloc[0]
    assert (row["patient"], row["eye"]) == (patient, eye)


def test_patient_and_eye_from_columns_win_over_the_name(tmp_path: Path) -> None:
    text = "image,grade,patient_id,eye\n1_left,0,A,R\n2_left,1,nan,\n3_left,1,,left eye\n"
    table(tmp_path, text, "1_left.jpg", "2_left.jpg", "3_left.jpg")
    data = reading.read(tmp_path).table
    assert data["patient"].tolist() == ["A", "2", "3"]
    assert data["eye"].tolist() == ["right", "left", "left"]


@pytest.mark.parametrize(
    ("grades", "expected"),
    [("grade,level", [1, 2]), ("level,grade", [3, 4])],
)
def test_of_two_grade_columns_the_surer_is_taken_and_said(
    tmp_path: Path, grades: str, expected: list[int]
) -> None:
    table(tmp_path, f"image,{grades}\na,1,3\nb,2,4\n", "a.png", "b.png")
    listener = Listener()
    data = reading.read(tmp_path, observer=listener)
    assert data.table["grade"].tolist() == expected
    assert any("'grade' is taken as the grade, not 'level'" in note for note in listener.notes)


def test_a_split_column_that_means_something_else_is_kept(tmp_path: Path) -> None:
    table(tmp_path, "image,grade,set\na,1,A\nb,2,B\n", "a.png", "b.png")
    data = reading.read(tmp_path)
    assert data.table["split"].tolist() == [None, None]
    assert data.extra_columns == ("set",)
    message = refusal(tmp_path, columns=Columns(split="set"))
    assert "labels.csv, row 2, column 'set': 'A' is not train, val or test" in message


# --- which file a name means --------------------------------------------------------------------


def test_a_names_own_folder_decides(tmp_path: Path) -> None:
    table(tmp_path, "image,grade\nleft/1,0\nright/1,4\n", "x/left/1.png", "x/right/1.png")
    assert [path for path, *_ in rows(reading.read(tmp_path))] == ["x/left/1.png", "x/right/1.png"]


def test_extension_and_case_decide_where_they_must(tmp_path: Path) -> None:
    if (put(tmp_path, images("Aa.png")) / "aA.png").exists():
        pytest.skip("this file system does not tell cases apart")
    table(
        tmp_path,
        "image,grade\na.jpg,0\na.png,4\nB.png,1\nb.png,2\n",
        "a.jpg",
        "a.png",
        "B.png",
        "b.png",
    )
    found = [path for path, *_ in rows(reading.read(tmp_path))]
    assert found == ["a.jpg", "a.png", "B.png", "b.png"]


def test_several_files_for_a_name_are_warned_about(tmp_path: Path) -> None:
    table(tmp_path, "image,grade\na,0\nb,1\n", "full/a.png", "small/a.png", "full/b.png")
    listener = Listener()
    data = reading.read(tmp_path, observer=listener)
    assert [path for path, *_ in rows(data)] == ["full/a.png", "full/b.png"]
    warned = "labels.csv: 1 names fit more than one file; for 'a' full/a.png was taken"
    assert listener.warnings == [warned]
    assert any("1 images are in no table" in note for note in listener.notes)


def test_a_test_row_never_takes_a_training_image(tmp_path: Path) -> None:
    text = "image,grade,split\na,0,train\nb,2,test\nc,2,test\n"
    table(tmp_path, text, "train/a.png", "train/b.png", "test/c.png")
    assert reading.count_reasons(reading.read(tmp_path).table) == {reading.MISSING: 1}
    put(tmp_path, images("test/b.png"))
    assert rows(reading.read(tmp_path))[1] == ("test/b.png", 2, "test")


@pytest.mark.parametrize("order", [("test", "train"), ("train", "test")])
def test_one_table_whose_splits_share_their_names(tmp_path: Path, order: tuple[str, str]) -> None:
    lines = [f"{i},{(i + len(split)) % 5},{split}" for split in order for i in range(4)]
    text = "id,grade,split\n" + "\n".join(lines)
    table(tmp_path, text, *(f"{s}_set/{i}.png" for s in reversed(order) for i in range(4)))
    data = rows(reading.read(tmp_path))
    assert data == [
        (f"{split}_set/{i}.png", (i + len(split)) % 5, split) for split in order for i in range(4)
    ]
    for i in range(4):
        (tmp_path / "test_set" / f"{i}.png").unlink()
    assert rows(reading.read(tmp_path)) == [row for row in data if row[2] == "train"]
    for i in range(4):
        (tmp_path / "train_set" / f"{i}.png").rename(tmp_path / f"{i}.png")
    assert reading.count_reasons(reading.read(tmp_path).table) == {CONTESTED: 8}


def test_tables_in_folders_of_their_split(tmp_path: Path) -> None:
    for split, grade in (("train", 1), ("test", 4)):
        put(tmp_path / split, {"labels.csv": f"image,grade\n1,{grade}\n", **images("images/1.png")})
    assert rows(reading.read(tmp_path)) == [
        ("train/images/1.png", 1, "train"),
        ("test/images/1.png", 4, "test"),
    ]


def test_a_folder_above_the_data_set_says_no_split(tmp_path: Path) -> None:
    put(
        tmp_path / "test" / "aptos",
        {"train.csv": "id_code,diagnosis\na,1\n", **images("images/a.png")},
    )
    assert rows(reading.read(tmp_path)) == [("test/aptos/images/a.png", 1, "train")]


def test_a_validation_split_taken_out_of_the_training_folder(tmp_path: Path) -> None:
    table(
        tmp_path,
        "image,grade,split\na,0,train\nb,1,val\nc,1,test\n",
        "train/a.png",
        "train/b.png",
        "test/c.png",
    )
    assert rows(reading.read(tmp_path))[1] == ("train/b.png", 1, "val")


def test_images_outside_the_tables_folder(tmp_path: Path) -> None:
    put(tmp_path, images("photos/a.png", "photos/b.png"))
    absolute = (tmp_path / "photos" / "b.png").as_posix()
    table(tmp_path / "tables", f"image,grade\n../photos/a.png,0\n{absolute},4\n")
    data = reading.read(tmp_path / "tables")
    assert reading.count_reasons(data.table) == {}
    found = [os.path.realpath(data.root / path) for path in data.table["path"]]
    assert found == [os.path.realpath(tmp_path / "photos" / name) for name in ("a.png", "b.png")]


def test_two_tables_may_share_a_folder_outside(tmp_path: Path) -> None:
    put(tmp_path, images("photos/a.png", "photos/b.png", "photos/c.png"))
    text = "image,grade\n../photos/{},1\n"
    put(tmp_path / "set", {"train.csv": text.format("a.png"), "test.csv": text.format("b.png")})
    listener = Listener()
    data = reading.read(tmp_path / "set", observer=listener)
    assert [split for *_, split in rows(data)] == ["train", "test"]
    assert listener.warnings == [], "no image is listed twice"
    assert any(note.startswith("1 images are in no table") for note in data.notes)


def test_images_outside_a_folder_named_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, images("photos/a.png"))
    table(tmp_path / "set", "image,grade\n../photos/a.png,1\n")
    monkeypatch.chdir(tmp_path)
    data = reading.read("set")
    assert (data.root / data.table["path"][0]).is_file()


def test_two_names_for_one_file_leave_neither_wrong(tmp_path: Path) -> None:
    table(tmp_path, "image,grade\na.png,0\na.jpg,4\n", "a.tif")
    assert reading.count_reasons(reading.read(tmp_path).table) == {reading.MISSING: 2}


def test_of_a_table_given_by_itself_only_its_own_folders_count(tmp_path: Path) -> None:
    put(tmp_path, images("near/c.png", "siblings/x.png", "siblings/deep/y.png", "z.png"))
    for name in ("near/a", "a"):  # by its folder, and found below
        (tmp_path / "near" / "a.png").touch()
        listener = Listener()
        table(tmp_path, f"image,grade\n{name},1\n")
        data = reading.read(tmp_path / "labels.csv", observer=listener)
        assert rows(data) == [("near/a.png", 1, None)]
        aside = [note for note in listener.notes if "aside" in note]
        assert aside == ["1 images are in no table and stand aside (such as near/c.png)"]


def test_a_table_that_names_its_folders_looks_into_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path, "image,grade\nnear/a.png,1\nb.png,2\n", "near/a.png", "b.png", "far/c.png")
    monkeypatch.setattr(reading, "scan", lambda root: pytest.fail("the whole folder is walked"))
    assert len(rows(reading.read(tmp_path / "labels.csv"))) == 2


def test_a_patient_is_known_by_the_dicom_file_before_its_name(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from tests.builders import dicom

    pixels = np.full((8, 8, 3), 90, np.uint8)
    put(tmp_path, {"0/a_left.dcm": b"", "1/b_left.dcm": b"damaged", "1/c.png": b""})
    dicom.save(tmp_path / "0" / "a_left.dcm", pixels)
    dicom.save(tmp_path / "0" / "x.dcm", pixels, PatientID="", ImageLaterality="L")
    table = reading.read(tmp_path).table
    found = {
        Path(path).name: (patient, eye)
        for path, patient, eye in zip(table["path"], table["patient"], table["eye"], strict=True)
    }
    assert found == {
        "a_left.dcm": ("P-17", "right"),
        "x.dcm": (None, "left"),
        "b_left.dcm": ("b", "left"),
        "c.png": (None, None),
    }


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    put(tmp_path, {"0/a.png": b"", "1/b.png": b"", "0/c.psd": b"", "0/d.CR2": b"", "1/e": b""})
    listener = Listener()
    reading.read(tmp_path, observer=listener)
    told = next(note for note in listener.notes if note.startswith("passed over"))
    assert all(kind in told for kind in ("1 .psd", "1 .cr2", "1 without"))
    put(tmp_path / "only", {"c.psd": b""})
    assert "no table in it (passed over: 1 .psd)" in refusal(tmp_path / "only")


def test_hidden_files_and_circles_of_links_are_passed_over(tmp_path: Path) -> None:
    table(
        tmp_path,
        "image,grade\na,0\nb,1\n",
        "p/a.png",
        "p/._a.png",
        ".trash/b.png",
        "__MACOSX/b.png",
    )
    try:
        (tmp_path / "p" / "again").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be made here")
    assert rows(reading.read(tmp_path)) == [("p/a.png", 0, None)]


def test_names_that_are_no_text_are_said(tmp_path: Path) -> None:
    put(tmp_path, images("0/a.jpg", "1/b.jpg"))
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/1/\xff.jpg")).touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    listener = Listener()
    assert len(reading.read(tmp_path, observer=listener).table) == 2
    assert len(listener.warnings) == 1
    listener.warnings[0].encode()


def test_a_folder_of_links_is_followed(tmp_path: Path) -> None:
    put(tmp_path, images("disk/a.png"))
    table(tmp_path / "set", "image,grade\na,0\n")
    try:
        (tmp_path / "set" / "photos").symlink_to(tmp_path / "disk", target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be made here")
    assert rows(reading.read(tmp_path / "set")) == [("photos/a.png", 0, None)]


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("image,grade\na,0\nb,7\n", "row 3, column 'grade': '7' is not a grade 0-4"),
        ("image,grade\n\na,0\n\nb,-1\n", "row 5, column 'grade': '-1' is not a grade 0-4"),
        ("image,grade\na,1.5\n", "row 2, column 'grade': '1.5' is not"),
        ("image,grade\na,\n", "row 2, column 'grade': no grade is given"),
        ("image,grade\na,nan\n", "row 2, column 'grade': no grade is given, in 1 of 1 rows"),
        ("image,grade\na,\nb,2\nc,\n", "row 2, column 'grade': no grade is given, in 2 of 3 rows"),
        ("image,level\na,five\n", "row 2, column 'level': 'five' is not"),
        ("image,grade\na,5\n", "row 2, column 'grade': '5' is not a grade 0-4 (5 means ungradable"),
        ("image,grade\n,1\n", "row 2, column 'image': no image is named"),
        ("image,grade\na,1,extra\n", "row 2: more cells than the header's 2 columns"),
        ("image,grade\na,1\nb,2\na,3\n", "rows 2 and 4, column 'image': 'a' is graded 1 and 3"),
        ("image,grade\n", "an empty data set: no row below the header"),
        ("", "looked for"),
        ("image,grade\n\n\n", "an empty data set"),
        ("image,nothing\na,1\n", "with 'image', 'nothing'"),
        ("image\na\n", "looked for"),
        ("a.png,b.png\n", "looked for"),
        ('image,grade\n"a,1\nb,2\n', "labels.csv: not a table"),
        ("image,grade\na,1\0\n", "looked for"),
    ],
)
def test_what_is_wrong_and_where(tmp_path: Path, text: str, where: str) -> None:
    table(tmp_path, text)  # without a single image: wrong values come first
    message = refusal(tmp_path)
    assert where in message
    assert "labels.csv" in message or "looked for" in message


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nowhere: no such folder or table" in refusal(tmp_path / "nowhere")
    assert "an empty data set: no image and no table" in refusal(tmp_path)
    put(tmp_path, images("a.jpg"))
    assert "give a folder, or a table" in refusal(tmp_path / "a.jpg")
    assert "no layout 'ibm'; known are" in refusal(tmp_path, layout="ibm")
    table(tmp_path, "scan,grade\na,1\n")
    message = refusal(tmp_path, columns=Columns(image="picture", grade="grade"))
    assert "a table with --image-column picture and --grade-column grade" in message
    assert "labels.csv with 'scan', 'grade'" in message
    message = refusal(tmp_path, columns=Columns(image="scan", grade="grade", patient="who"))
    assert "no column 'who' (--patient-column); it has 'scan', 'grade'" in message


def test_without_a_single_image_reading_works_and_training_is_refused(tmp_path: Path) -> None:
    table(tmp_path, "image,grade\na,1\nb,2\n")
    data = reading.read(tmp_path)
    assert reading.count_reasons(data.table) == {reading.MISSING: 2}
    with pytest.raises(UsageError, match=r"none of the 2 images .* 'a'"):
        reading.need_images(data)
    put(tmp_path, images("b.png"))
    reading.need_images(reading.read(tmp_path))


def test_a_name_that_stands_twice_counts_once(tmp_path: Path) -> None:
    table(tmp_path, "image,grade\na,1\nb,2\na,1\n", "a.png", "b.png")
    data = reading.read(tmp_path)
    assert reading.count_reasons(data.table) == {REPEATED: 1}
    assert data.table["reason"].tolist() == [None, None, REPEATED]


def test_a_row_without_a_grade_is_left_out_and_said(tmp_path: Path) -> None:
    """Of a table mostly empty the column is the wrong one: see what is refused above."""
    table(tmp_path, "image,grade\na,1\nb,\nc,nan\nd,4\nb,2\n", "a.png", "b.png", "c.png", "d.png")
    listener = Listener()
    data = reading.read(tmp_path, observer=listener)
    assert rows(data) == [("a.png", 1, None), ("d.png", 4, None), ("b.png", 2, None)]
    assert reading.count_reasons(data.table) == {UNGRADED: 1, REPEATED: 1}
    said = "labels.csv: 2 of 5 rows have no grade and are left out (the first is row 3, column"
    assert any(said in note for note in listener.notes)


def test_words_that_are_no_grade_get_a_map_to_paste(tmp_path: Path) -> None:
    table(tmp_path, "image,stage\na,1: none\nb,2: mild\nc,3: moderate\n")
    said = refusal(tmp_path)
    assert "row 2, column 'stage': '1: none' is not a grade 0-4; say what the values mean" in said
    assert said.endswith('--grade-map "1: none=0,2: mild=1,3: moderate=2"')


def test_folders_that_cannot_be_opened_are_said(tmp_path: Path) -> None:
    table(tmp_path, "image,grade\na,1\n", "shut/a.png")
    (tmp_path / "shut").chmod(0)
    try:
        if os.access(tmp_path / "shut", os.R_OK):
            pytest.skip("nothing is shut to this user")
        listener = Listener()
        reading.read(tmp_path, observer=listener)
        assert any("shut: cannot be opened" in warning for warning in listener.warnings)
    finally:
        (tmp_path / "shut").chmod(0o755)


def test_a_workbook_that_is_none(tmp_path: Path) -> None:
    table(tmp_path, b"PK no zip", file="labels.xlsx")
    assert "looked for" in refusal(tmp_path)
    with pytest.raises(UsageError, match="save it as CSV"):
        tables.read(tmp_path / "labels.xlsx")


# --- what comes after reading -------------------------------------------------------------------


def test_unreadable_images_are_left_out_with_their_reason(tmp_path: Path) -> None:
    table(tmp_path, "image,grade,split\na,1,train\nb,2,test\nc,2,test\n", "a.png", "b.png")
    data = reading.read(tmp_path)
    after = reading.leave_out(data.table, {"b.png": "truncated file: 3 bytes", "c": "never read"})
    assert after["reason"].tolist() == [
        None,
        "unreadable: truncated file: 3 bytes",
        reading.MISSING,
    ]
    assert after["split"].tolist() == ["train", None, "test"]
    assert reading.count_reasons(after) == {"unreadable": 1, reading.MISSING: 1}
    assert data.table["reason"].tolist() == [None, None, reading.MISSING], "the table itself stays"
    assert data.fingerprint == reading.fingerprint(data.table) != reading.fingerprint(after)


def test_fingerprint_knows_rows_grades_and_splits_not_their_order() -> None:
    frame = pd.DataFrame(
        {"path": ["b.png", "a.png"], "grade": np.array([1, 2], np.int8), "split": ["train", None]}
    )
    known = "023b52c77f0ac458"  # on every machine, with every version of pandas
    assert reading.fingerprint(frame).startswith(known)
    assert reading.fingerprint(frame.iloc[::-1]) == reading.fingerprint(frame)
    for column, value in (("path", "c.png"), ("grade", 0), ("split", "test")):
        other = frame.copy()
        other.loc[0, column] = value
        assert reading.fingerprint(other) != reading.fingerprint(frame)


# --- laws ---------------------------------------------------------------------------------------

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=6
)
LAWFUL = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@LAWFUL
@given(st.lists(st.lists(WORDS, max_size=4), max_size=6), st.sampled_from([",", ";", "\t", " "]))
def test_any_table_is_read_or_refused_in_one_line(
    tmp_path: Path, cells: list[list[str]], separator: str
) -> None:
    text = "\n".join(separator.join(row) for row in cells)
    for head in ("", f"image{separator}grade\n"):
        (tmp_path / "labels.csv").write_text(head + text, encoding="utf-8", newline="")
        try:
            data = reading.read(tmp_path)
        except UsageError as error:
            said = str(error)
        else:
            said = ""
            assert len(data.table) <= len(cells), "never more rows than lines"
            graded = data.table[data.table["reason"] != UNGRADED]
            assert graded["grade"].isin(range(5)).all()
        assert "\n" not in said


@LAWFUL
@given(st.binary(max_size=60), st.sampled_from(["csv", "tsv", "txt", "xlsx", "npz"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, ending: str) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / f"labels.{ending}").write_bytes(content)
    for options in ({}, {"columns": Columns(image="column 1", grade="column 2")}):
        said = ""
        try:
            reading.read(tmp_path, **options)  # type: ignore[arg-type]
        except DrError as error:
            said = str(error)
        assert "\n" not in said


@LAWFUL
@given(
    st.lists(
        st.tuples(
            st.text("abcXYZ019_-. é", min_size=1, max_size=8).filter(
                lambda name: name.strip(" .") == name and not re.search(r"\.\w+$", name)
            ),
            st.integers(0, 4),
            st.sampled_from(["train", "val", "test", ""]),
            WORDS.map(str.strip),
        ),
        min_size=1,
        unique_by=lambda row: row[0].lower(),
    ),
    st.booleans(),
)
def test_a_table_written_is_the_table_read(
    tmp_path: Path, written: list[tuple[str, int, str, str]], excel: bool
) -> None:
    for old in [*tmp_path.rglob("*.png")]:
        old.unlink()
    put(tmp_path, images(*(f"photos/{name}.png" for name, *_ in written)))
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8-sig") as file:
        out = csv.writer(file, dialect="excel" if excel else "unix")
        out.writerow(["image", "grade", "split", "remark"])
        out.writerows(written)
    data = reading.read(tmp_path)
    assert rows(data) == [
        (f"photos/{name}.png", grade, split or None) for name, grade, split, _ in written
    ]
    if any(remark for *_, remark in written):
        assert data.table["remark"].tolist() == [remark for *_, remark in written]


@pytest.mark.parametrize("text", ["0", "3.0", "Grade 2", "No DR", "mild_npdr", "4_PDR", " 1 "])
def test_words_that_mean_a_grade(text: str) -> None:
    assert layouts.parse_grade(text) in range(5)


@pytest.mark.parametrize("text", ["", "5", "-1", "1.5", "0 mild", "grade", "12", "retina", "1e0"])
def test_words_that_mean_none(text: str) -> None:
    assert layouts.parse_grade(text) is None


# --- advice that helps --------------------------------------------------------------------------


def test_a_table_without_titles_and_extensions_is_read_by_counted_columns(tmp_path: Path) -> None:
    root = table(tmp_path, "a,0\nb,4\n", "a.png", "b.png")
    assert "'column 1'" in refusal(root)
    counted = Columns(image="column 1", grade="column 2")
    assert rows(reading.read(root, columns=counted)) == AB


def test_a_table_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    said = refusal(table(tmp_path, 'image,grade\na,0\n"b,4\n', "a.png"))
    assert "labels.csv: not a table (EOF inside string starting at row 3)" in said
