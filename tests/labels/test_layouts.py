"""Every known layout, made anew in miniature: its column names, quirks and folders."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dr_cli.errors import UsageError
from dr_cli.labels import layouts, reading
from dr_cli.labels.columns import NO_GRADE, Columns
from dr_cli.labels.matching import CONTESTED
from tests.builders import photographs
from tests.builders.listener import Listener
from tests.builders.tables import images, put, rows, workbook

# --- one miniature a layout ---------------------------------------------------------------------


def course(root: Path) -> Path:
    return put(root, {
        "train_img.csv": "10_left\n10_right\n11_left\n",
        "train_label.csv": "0\n1\n4\n",
        "test_img.csv": "11_right\n12_left\n",
        "test_label.csv": "3\n2\n",
        **images("data/10_left.jpeg", "data/10_right.jpeg", "data/11_left.jpeg",
                 "data/11_right.jpeg", "data/12_left.jpeg"),
    })  # fmt: skip


def eyepacs(root: Path) -> Path:
    return put(root, {
        "trainLabels.csv": "image,level\n10_left,0\n10_right,1\n",
        "retinopathy_solution.csv": "image,level,Usage\n1_left,2,Private\n2_right,4,Public\n",
        "sampleSubmission.csv": "image,level\n1_left,0\n2_right,0\n",
        **images("train/10_left.jpeg", "train/10_right.jpeg", "test/1_left.jpeg",
                 "test/2_right.jpeg"),
    })  # fmt: skip


def aptos(root: Path) -> Path:
    return put(root, {
        "train.csv": "id_code,diagnosis\n000c1434d8d7,2\n001639a390f0,4\n",
        "test.csv": "id_code\n0005cfc8afb6\n",
        "sample_submission.csv": "id_code,diagnosis\n0005cfc8afb6,0\n",
        **images("train_images/000c1434d8d7.png", "train_images/001639a390f0.png",
                 "test_images/0005cfc8afb6.png"),
    })  # fmt: skip


IDRID = "B. Disease Grading/"


def idrid(root: Path) -> Path:
    tables = IDRID + "2. Groundtruths/"
    photos = IDRID + "1. Original Images/"
    return put(root, {
        tables + "a. IDRiD_Disease Grading_Training Labels.csv":
            "Image name,Retinopathy grade,Risk of macular edema ,,,\r\n"
            "IDRiD_001,3,2,,,\r\nIDRiD_002,0,0,,,\r\n",
        tables + "b. IDRiD_Disease Grading_Testing Labels.csv":
            "Image name,Retinopathy grade,Risk of macular edema \r\nIDRiD_001,4,0\r\n",
        **images(photos + "a. Training Set/IDRiD_001.jpg", photos + "a. Training Set/IDRiD_002.jpg",
                 photos + "b. Testing Set/IDRiD_001.jpg",
                 "C. Localization/1. Original Images/a. Training Set/IDRiD_001.jpg"),
    })  # fmt: skip


def messidor2(root: Path) -> Path:
    return put(root, {
        "messidor_data.csv": "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable\n"
            "20051020_43808_0100_PP.png,0,0,1\n20051020_43832_0100_PP.png,1,0,1\n"
            "IM004832.jpg,4,1,1\nIM002385.jpg,,,0\n",
        "messidor-2.csv": "left;right\n20051020_43808_0100_PP.png;20051020_43832_0100_PP.png\n"
            "IM004832.JPG;IM002385.JPG\n",
        **images("IMAGES/20051020_43808_0100_PP.png", "IMAGES/20051020_43832_0100_PP.png",
                 "IMAGES/IM004832.JPG", "IMAGES/IM002385.JPG"),
    })  # fmt: skip


def ddr(root: Path) -> Path:
    return put(root, {
        "train.txt": "007-0004-000.jpg 0\n007-0005-000.jpg 4\n007-0006-000.jpg 5\n",
        "valid.txt": "007-1774-100.jpg 2\n",
        "test.txt": "007-2043-100.jpg 1\n",
        **images("train/007-0004-000.jpg", "train/007-0005-000.jpg", "train/007-0006-000.jpg",
                 "valid/007-1774-100.jpg", "test/007-2043-100.jpg"),
    })  # fmt: skip


def deepdrid(root: Path) -> Path:
    top = "regular_fundus_images/"
    head = ("patient_id,image_id,image_path,Overall quality,left_eye_DR_Level,right_eye_DR_Level,"
            "patient_DR_Level,Clarity,Field definition,Artifact\n")  # fmt: skip
    training, validation = top + "regular-fundus-training/", top + "regular-fundus-validation/"
    challenge = top + "Online-Challenge1&2-Evaluation/"
    return put(root, {
        training + "regular-fundus-training.csv": head
            + "1,1_l1,\\regular-fundus-training\\1\\1_l1.jpg,0,0,,2,8,8,4\n"
            + "1,1_r1,\\regular-fundus-training\\1\\1_r1.jpg,0,,2,2,8,8,4\n"
            + "56,56_r3,\\regular-fundus-training\\56\\56_r3.jpg,0,1,,1,10,8,1\n",
        validation + "regular-fundus-validation.csv": head
            + "265,265_l1,\\regular-fundus-validation\\265\\265_l1.jpg,0,3,,4,4,8,10\n",
        challenge + "Challenge1_upload.csv": "image_id,DR_Level\n347_l1,\n",
        challenge + "Challenge1_labels.xlsx": workbook(["image_id", "DR_Levels"], ["347_l1", 4]),
        **images(training + "Images/1/1_l1.jpg", training + "Images/1/1_r1.jpg",
                 training + "Images/56/56_r3.jpg", validation + "Images/265/265_l1.jpg",
                 challenge + "Images/347/347_l1.jpg"),
    })  # fmt: skip


def brset(root: Path) -> Path:
    return put(root, {
        "labels.csv": "image_id,patient_id,camera,patient_sex,exam_eye,DR_SDRG,DR_ICDR,quality\n"
            "img00001,1,Canon CR,1,1,0,0,Adequate\nimg00002,1,Canon CR,1,2,3,3,Inadequate\n",
        **images("fundus_photos/img00001.jpg", "fundus_photos/img00002.jpg"),
    })  # fmt: skip


def mbrset(root: Path) -> Path:
    return put(root, {
        "labels_mbrset.csv": "patient,age,sex,file,laterality,final_quality,final_icdr\n"
            "1,50,0,1.1.jpg,right,yes,2.0\n1,50,0,1.3.jpg,left,yes,4.0\n"
            "2,60,1,2.1.jpg,right,no,\n",
        **images("images/1.1.jpg", "images/1.3.jpg", "images/2.1.jpg"),
    })  # fmt: skip


def sustech(root: Path) -> Path:
    head = ("Fundus_images,left_versus_right_eye(left_0_right_1),"
            "DR_grade(International_Clinical_DR_Severity_Scale),"
            "DR_grade(American_Academy_of_Ophthalmology),DR_grade(Scottish_DR_grading_protocol)\n"
            )  # fmt: skip
    return put(root, {
        "originalImages/drLabels.csv": head + "0001.jpg,0,0,0,0\n0002.jpg,1,3,3,4\n"
            "0003.jpg,1,5,5,5\n",
        "originalImages/c5_DR_reclassified.csv": head + "0003.jpg,1,2,2,2\n",
        **images("originalImages/0001.jpg", "originalImages/0002.jpg", "originalImages/0003.jpg"),
    })  # fmt: skip


def drtid(root: Path) -> Path:
    grades = "Ground Truths/DR_grade/"
    return put(root, {
        grades + "a. DR_grade_Training.csv": "ID,Grade,Macula,Optic disc,LR\n7,2,7_1,7_2,L\n",
        grades + "b. DR_grade_Testing.csv": "ID,Grade,Macula,Optic disc,LR\n8,0,8_1,8_2,R\n",
        **images(*(f"Original Images/{name}.jpg" for name in ("7_1", "7_2", "8_1", "8_2"))),
    })  # fmt: skip


def retinamnist(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, grades in (("train", [0, 4]), ("val", [1]), ("test", [2, 3])):
        arrays[f"{split}_images"] = rng.integers(0, 256, (len(grades), 28, 28, 3), np.uint8)
        arrays[f"{split}_labels"] = np.array(grades, np.uint8)[:, None]
    np.savez_compressed(root / "retinamnist.npz", **arrays)
    return root


def folders(root: Path) -> Path:
    return put(root, images("train/0/10_left.jpg", "train/4/10_right.jpg", "train/2/a.png",
                            "test/1/11_left.jpg", "test/3/b.tif"))  # fmt: skip


def any_table(root: Path) -> Path:
    return put(root, {
        "grades.csv": "file name,Grade,subject,side,set,camera\na.ppm,0,p1,OD,train,X\n"
            "b,3,p1,OS,valid,\nc.JPG,1,p2,,test,Y\n",
        **images("photos/a.ppm", "photos/b.tif", "photos/c.jpg"),
    })  # fmt: skip


PHOTOS = IDRID + "1. Original Images/"
FUNDUS = "regular_fundus_images/"
EXPECTED: dict[Callable[[Path], Path], tuple[str, list[tuple[str, int, str | None]]]] = {
    course: ("course", [
        ("data/10_left.jpeg", 0, "train"), ("data/10_right.jpeg", 1, "train"),
        ("data/11_left.jpeg", 4, "train"), ("data/11_right.jpeg", 3, "test"),
        ("data/12_left.jpeg", 2, "test"),
    ]),
    eyepacs: ("eyepacs", [
        ("train/10_left.jpeg", 0, "train"), ("train/10_right.jpeg", 1, "train"),
        ("test/1_left.jpeg", 2, "test"), ("test/2_right.jpeg", 4, "val"),
    ]),
    aptos: ("aptos", [
        ("train_images/000c1434d8d7.png", 2, "train"),
        ("train_images/001639a390f0.png", 4, "train"),
    ]),
    idrid: ("idrid", [
        (PHOTOS + "a. Training Set/IDRiD_001.jpg", 3, "train"),
        (PHOTOS + "a. Training Set/IDRiD_002.jpg", 0, "train"),
        (PHOTOS + "b. Testing Set/IDRiD_001.jpg", 4, "test"),
    ]),
    messidor2: ("messidor2", [
        ("IMAGES/20051020_43808_0100_PP.png", 0, None),
        ("IMAGES/20051020_43832_0100_PP.png", 1, None),
        ("IMAGES/IM004832.JPG", 4, None),
    ]),
    ddr: ("ddr", [
        ("train/007-0004-000.jpg", 0, "train"), ("train/007-0005-000.jpg", 4, "train"),
        ("valid/007-1774-100.jpg", 2, "val"), ("test/007-2043-100.jpg", 1, "test"),
    ]),
    deepdrid: ("deepdrid", [
        (FUNDUS + "regular-fundus-training/Images/1/1_l1.jpg", 0, "train"),
        (FUNDUS + "regular-fundus-training/Images/1/1_r1.jpg", 2, "train"),
        (FUNDUS + "regular-fundus-training/Images/56/56_r3.jpg", 1, "train"),
        (FUNDUS + "regular-fundus-validation/Images/265/265_l1.jpg", 3, "val"),
        (FUNDUS + "Online-Challenge1&2-Evaluation/Images/347/347_l1.jpg", 4, "test"),
    ]),
    brset: ("brset", [
        ("fundus_photos/img00001.jpg", 0, None), ("fundus_photos/img00002.jpg", 3, None),
    ]),
    mbrset: ("mbrset", [("images/1.1.jpg", 2, None), ("images/1.3.jpg", 4, None)]),
    sustech: ("sustech", [
        ("originalImages/0001.jpg", 0, None), ("originalImages/0002.jpg", 3, None),
    ]),
    drtid: ("drtid", [
        ("Original Images/7_1.jpg", 2, "train"), ("Original Images/7_2.jpg", 2, "train"),
        ("Original Images/8_1.jpg", 0, "test"), ("Original Images/8_2.jpg", 0, "test"),
    ]),
    retinamnist: ("retinamnist", [
        ("retinamnist.npz#train/0", 0, "train"), ("retinamnist.npz#train/1", 4, "train"),
        ("retinamnist.npz#val/0", 1, "val"),
        ("retinamnist.npz#test/0", 2, "test"), ("retinamnist.npz#test/1", 3, "test"),
    ]),
    folders: ("folders", [
        ("test/1/11_left.jpg", 1, "test"), ("test/3/b.tif", 3, "test"),
        ("train/0/10_left.jpg", 0, "train"), ("train/2/a.png", 2, "train"),
        ("train/4/10_right.jpg", 4, "train"),
    ]),
    any_table: ("table", [
        ("photos/a.ppm", 0, "train"), ("photos/b.tif", 3, "val"), ("photos/c.jpg", 1, "test"),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("make", EXPECTED, ids=lambda make: make.__name__)
def test_every_layout_is_recognised_and_read(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    data = reading.read(make(tmp_path))
    name, expected = EXPECTED[make]
    assert data.layout == name
    assert rows(data) == expected
    assert reading.read(tmp_path, layout=name).table.equals(data.table), "--layout says the same"


def test_no_layout_lacks_a_miniature() -> None:
    assert {name for name, _ in EXPECTED.values()} == set(layouts.BY_NAME)


@pytest.mark.parametrize("make", EXPECTED, ids=lambda make: make.__name__)
def test_a_layout_is_recognised_from_a_folder_above(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    make(tmp_path / "download" / "unpacked")
    data = reading.read(tmp_path)
    name, expected = EXPECTED[make]
    assert data.layout == name
    assert rows(data) == [(f"download/unpacked/{path}", *rest) for path, *rest in expected]


@pytest.mark.parametrize("name", layouts.BY_NAME)
def test_another_layout_than_the_folder_has_is_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, {"notes.csv": "when,what\n1,x\n", **images("a.jpg")})
    with pytest.raises(UsageError, match=r"looked for.*notes.csv with 'when', 'what'") as error:
        reading.read(tmp_path, layout=name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


# --- quirks of one layout -----------------------------------------------------------------------


def test_course_files_have_no_header(shared: Path) -> None:
    table = reading.read(shared / "data" / "dlp").table
    counts = table.groupby("split")["grade"].value_counts().unstack()
    assert counts.loc["train"].tolist() == [20656, 1955, 4210, 698, 581]
    assert counts.loc["test"].tolist() == [5154, 488, 1082, 175, 127]
    assert table["patient"].notna().all()


@pytest.mark.parametrize("titled", ["both", "grades"])
def test_course_files_that_somebody_gave_a_header(tmp_path: Path, titled: str) -> None:
    course(tmp_path)
    names = ("image\n" if titled == "both" else "") + "10_left\n10_right\n11_left\n"
    put(tmp_path, {"train_img.csv": names, "train_label.csv": "level\n0\n1\n4\n"})
    assert rows(reading.read(tmp_path)) == EXPECTED[course][1]


def test_course_files_of_different_length_are_refused(tmp_path: Path) -> None:
    course(tmp_path)
    put(tmp_path, {"test_label.csv": "3\n"})
    with pytest.raises(UsageError, match=r"test_img\.csv names 2 images, test_label\.csv has 1"):
        reading.read(tmp_path)


def test_idrid_test_rows_never_get_training_photographs(tmp_path: Path) -> None:
    """Both splits name IDRiD_001; without its own photograph a test row has none."""
    idrid(tmp_path)
    (tmp_path / PHOTOS / "b. Testing Set" / "IDRiD_001.jpg").unlink()
    table = reading.read(tmp_path).table
    test = table[table["split"] == "test"]
    assert test["reason"].tolist() == [reading.MISSING]
    assert not test["path"].str.contains("Training").any()


def test_idrid_in_one_heap_cannot_be_told_apart(tmp_path: Path) -> None:
    idrid(tmp_path)
    for photo in sorted(tmp_path.rglob("*.jpg")):
        photo.rename(tmp_path / photo.name)  # the last IDRiD_001 wins
    data = reading.read(tmp_path)
    assert reading.count_reasons(data.table) == {CONTESTED: 2}
    assert rows(data) == [("IDRiD_002.jpg", 0, "train")]


def test_real_idrid_keeps_each_split_to_its_folder(shared: Path) -> None:
    table = reading.read(shared / "data" / "idrid").table
    assert len(table) == 516
    assert table["reason"].isna().all()
    for split, folder in (("train", "a. Training Set"), ("test", "b. Testing Set")):
        assert table[table["split"] == split]["path"].str.contains(folder, regex=False).all()
    assert table["path"].is_unique


def test_ddr_leaves_out_the_ungradable_and_counts_them(tmp_path: Path) -> None:
    data = reading.read(ddr(tmp_path))
    assert reading.count_reasons(data.table) == {"ungradable (grade 5)": 1}
    row = data.table[data.table["reason"].notna()].iloc[0]
    assert (row["path"], row["grade"]) == ("train/007-0006-000.jpg", NO_GRADE)


def test_messidor_pairs_tell_patients_and_eyes(tmp_path: Path) -> None:
    table = reading.read(messidor2(tmp_path)).table
    assert table["eye"].tolist() == ["left", "right", "left", "right"]
    assert table["patient"].tolist() == ["pair-2", "pair-2", "pair-3", "pair-3"]
    assert table["reason"].tolist() == [None, None, None, "ungradable"]


def test_messidor_as_kaggle_users_hand_it_on(tmp_path: Path) -> None:
    table = "id_code,diagnosis,adjudicated_dme,adjudicated_gradable\nIM004832.jpg,4,1,1\n"
    put(tmp_path, {"messidor_data.csv": table, **images("preprocess/IM004832.JPG")})
    data = reading.read(tmp_path)
    assert data.layout == "messidor2"
    assert rows(data) == [("preprocess/IM004832.JPG", 4, None)]


def test_deepdrid_believes_the_graded_column_not_the_name(tmp_path: Path) -> None:
    """Patient 56 has two names swapped: 56_r3 is graded as a left eye."""
    table = reading.read(deepdrid(tmp_path)).table
    assert table["eye"].tolist() == ["left", "right", "left", "left", "left"]
    assert table["patient"].tolist() == ["1", "1", "56", "265", "347"]


def test_of_several_npz_the_largest_is_taken_and_said(tmp_path: Path) -> None:
    retinamnist(tmp_path)
    (tmp_path / "retinamnist.npz").rename(tmp_path / "small.npz")
    with np.load(tmp_path / "small.npz") as small:
        large = {k: v.repeat(3, 1).repeat(3, 2) if v.ndim == 4 else v for k, v in small.items()}
    np.savez(tmp_path / "retinamnist_224.npz", **large)
    data = reading.read(tmp_path)
    assert data.table["path"][0] == "retinamnist_224.npz#train/0"
    assert any("not 'small.npz'" in note for note in data.notes)
    assert reading.read(tmp_path / "small.npz").table["path"][0] == "small.npz#train/0"


def test_another_medmnist_is_refused(tmp_path: Path) -> None:
    zeros = np.zeros((2, 28, 28, 3), np.uint8)
    np.savez(tmp_path / "pathmnist.npz", train_images=zeros, train_labels=np.array([[0], [8]]))
    with pytest.raises(UsageError, match="'train_labels', place 1: 8 is not a grade"):
        reading.read(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["0", "1", "2", "3", "4"],
        ["No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR"],
        ["No DR", "Mild DR", "Moderate DR", "Severe DR", "Proliferative DR"],
        ["0 - No DR", "1 - Mild", "2 - Moderate", "3 - Severe", "4 - Proliferative"],
        ["grade_0", "grade_1", "grade_2", "grade_3", "grade_4"],
        ["Class0", "Class1", "Class2", "Class3", "Class4"],
        ["Healthy", "Mild NPDR", "Moderate NPDR", "Severe NPDR", "PDR"],
    ],
    ids=lambda names: names[0],
)
@pytest.mark.parametrize("above", ["{}", "train/{}", "images/val/{}", "{}/site_7"])
def test_class_folders_in_their_usual_names(tmp_path: Path, names: list[str], above: str) -> None:
    put(tmp_path, images(*(f"{above.format(name)}/{i}.jpg" for i, name in enumerate(names))))
    table = reading.read(tmp_path).table
    assert dict(zip(table["path"].str[-5], table["grade"], strict=True)) == {
        str(i): i for i in range(5)
    }
    split = "train" if "train" in above else "val" if "val" in above else None
    assert set(table["split"]) == {split}


def test_folders_beside_the_grades_are_left_out_and_counted(tmp_path: Path) -> None:
    put(tmp_path, images("0/a.jpg", "1/b.jpg", "5/c.jpg", "unsorted/d.jpg", "cover.png"))
    data = reading.read(tmp_path)
    assert reading.count_reasons(data.table) == {
        reading.NO_GRADE_FOLDER: 2,
        "ungradable (grade 5)": 1,
    }


def test_numbered_patients_are_no_grades(tmp_path: Path) -> None:
    put(tmp_path, images(*(f"{patient}/left.jpg" for patient in range(9))))
    with pytest.raises(UsageError, match="looked for"):
        reading.read(tmp_path)


def test_brset_and_mbrset_tell_patients_and_eyes(tmp_path: Path) -> None:
    table = reading.read(brset(tmp_path / "brset")).table
    assert table["eye"].tolist() == ["right", "left"], "exam_eye 1 and 2"
    assert table["patient"].tolist() == ["1", "1"]
    data = reading.read(mbrset(tmp_path / "mbrset"))
    assert data.table["eye"].tolist() == ["right", "left", "right"]
    assert data.table["patient"].tolist() == ["1", "1", "2"]
    assert reading.count_reasons(data.table) == {"no grade": 1}


def test_sustech_leaves_treated_eyes_out(tmp_path: Path) -> None:
    data = reading.read(sustech(tmp_path))
    assert data.table["eye"].tolist() == ["left", "right", "right"]
    assert reading.count_reasons(data.table) == {"ungradable (grade 5)": 1}


def test_drtid_keeps_the_two_fields_of_an_eye_together(tmp_path: Path) -> None:
    table = reading.read(drtid(tmp_path)).table
    assert table["patient"].tolist() == ["7", "7", "8", "8"]
    assert table["eye"].tolist() == ["left", "left", "right", "right"]


def test_fgadr_is_a_table_without_titles(tmp_path: Path) -> None:
    put(tmp_path, {"Seg-set/DR_Seg_Grading_Label.csv": "0000_1.png,3\n0001_2.png,0\n",
                   **images("Seg-set/Original_Images/0000_1.png",
                            "Seg-set/Original_Images/0001_2.png")})  # fmt: skip
    assert [grade for _, grade, _ in rows(reading.read(tmp_path))] == [3, 0]


# --- scales that are not 0-4 --------------------------------------------------------------------

SHIFTED = '--grade-map "1=0,2=1,3=2,4=3,5=4"'


@pytest.mark.parametrize("name", ["{}", "class {}", "Grade_{}", "train/{}"])
def test_folders_1_to_5_are_a_shifted_scale_and_refused(tmp_path: Path, name: str) -> None:
    """Taken as 1-4 and "ungradable", every eye would be one grade off, in silence."""
    put(tmp_path, images(*(f"{name.format(n)}/{n}.jpg" for n in range(1, 6))))
    with pytest.raises(UsageError, match="may be a scale from 1 on") as error:
        reading.read(tmp_path)
    said = str(error.value)
    assert said.count("--grade-map") == 2, "as a shifted one, and with 5 for ungradable"
    if name == "{}":
        assert SHIFTED in said
        assert said.endswith('if 5 means ungradable: --grade-map "1=1,2=2,3=3,4=4,5="')
    data = reading.read(tmp_path, columns=Columns(grade_map=paste(said)))
    assert sorted(grade for _, grade, _ in rows(data)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("first", [1, -1, 10])
def test_a_column_with_a_constant_offset_is_refused_with_a_map(tmp_path: Path, first: int) -> None:
    cells = "".join(f"{n}.png,{first + n}\n" for n in range(5))
    put(tmp_path, {"t.csv": "image,grade\n" + cells, **images(*(f"{n}.png" for n in range(5)))})
    with pytest.raises(
        UsageError, match=f"t.csv, column 'grade': .* scale from {first} on"
    ) as said:
        reading.read(tmp_path)
    data = reading.read(tmp_path, columns=Columns(grade_map=paste(str(said.value))))
    assert [grade for _, grade, _ in rows(data)] == [0, 1, 2, 3, 4]


def test_ddr_of_five_grades_without_0_is_doubted(tmp_path: Path) -> None:
    put(tmp_path, {"train.txt": "".join(f"{n}.jpg {n}\n" for n in range(1, 6))})
    with pytest.raises(UsageError, match="may be a scale from 1 on"):
        reading.read(tmp_path)


def paste(said: str) -> str:
    """The first map that a message offers, as a shell hands it on."""
    return shlex.split(said[said.index("--grade-map") :].replace("; ", " "))[1]


def test_folders_that_are_not_understood_are_named_with_a_map_to_paste(tmp_path: Path) -> None:
    """The seven of https://zenodo.org/records/4647952, whose scale splits severe and PDR."""
    names = ["1. No DR signs", "2. Mild (or early) NPDR", "3. Moderate NPDR", "4. Severe NPDR",
             "5. Very Severe NPDR", "6. PDR", "7. Advanced PDR", "8. Cataract, dense"]  # fmt: skip
    put(tmp_path, images(*(f"{name}/{i}.jpg" for i, name in enumerate(names))))
    with pytest.raises(
        UsageError, match=r"the folders '1\. No DR signs', .* not understood"
    ) as said:
        reading.read(tmp_path)
    assert "--image-column" not in str(said.value)
    data = reading.read(tmp_path, columns=Columns(grade_map=paste(str(said.value))))
    assert [grade for _, grade, _ in rows(data)] == [0, 1, 2, 3, 3, 4, 4]
    out = data.table["reason"].dropna().tolist()
    assert out == ["left out by --grade-map (8. Cataract, dense)"]


def test_r0_to_r4_are_known_and_r3_without_r4_is_doubted(tmp_path: Path) -> None:
    put(tmp_path, images(*(f"R{n}/{n}.jpg" for n in range(5))))
    assert [grade for _, grade, _ in rows(reading.read(tmp_path))] == [0, 1, 2, 3, 4]
    (tmp_path / "R4" / "4.jpg").unlink()
    with pytest.raises(UsageError, match="English scale, whose R3 is proliferative"):
        reading.read(tmp_path)
    columns = Columns(grade_map="R0=0,R1=1,R2=3,R3=4")
    assert [grade for _, grade, _ in rows(reading.read(tmp_path, columns=columns))] == [0, 1, 3, 4]


def test_a_map_decides_for_folders_and_says_what_it_does_not_name(tmp_path: Path) -> None:
    put(tmp_path, images("0/a.jpg", "B/b.jpg", "U/c.jpg", "x/d.jpg"))
    columns, listener = Columns(grade_map="0=3, b=0,U=-,gone=1"), Listener()
    data = reading.read(tmp_path, columns=columns, observer=listener)
    assert rows(data) == [("0/a.jpg", 3, None), ("B/b.jpg", 0, None)]
    assert reading.count_reasons(data.table) == {"left out by --grade-map (U)": 1,
                                                 reading.NO_GRADE_FOLDER: 1}  # fmt: skip
    assert any("names 'gone', which no folder" in warning for warning in listener.warnings)
    assert any("no grade: 'x'" in warning for warning in listener.warnings)
    assert data.columns.to_record() == {"grade_map": "0=3, b=0,U=-,gone=1"}


def test_a_map_decides_for_tables_and_refuses_what_it_does_not_name(tmp_path: Path) -> None:
    put(tmp_path, {"t.csv": "image,level\na,none\nb,severe\nc,9\n",
                   **images("a.png", "b.png", "c.png")})  # fmt: skip
    data = reading.read(tmp_path, columns=Columns(grade_map="None=0,severe=4,9="))
    assert rows(data) == [("a.png", 0, None), ("b.png", 4, None)]
    with pytest.raises(UsageError, match=r"row 4, column 'level': '9' is not in --grade-map"):
        reading.read(tmp_path, columns=Columns(grade_map="None=0,severe=4"))


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "is empty"), ("1", "VALUE=GRADE"), ("1=7", "'1=7': give"), ("=1", "VALUE=GRADE"),
     ("1=0,1.0=2", "'1.0' twice")],
)  # fmt: skip
def test_a_map_that_is_none_is_refused_before_anything_is_read(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Columns(grade_map=text)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"Annotation_Base11.csv": "Image name;Ophthalmologic department;Retinopathy grade;"
          "Risk of macular edema\na.tif;LaTIM;3;1\n", "a.tif": b""}, "Messidor .1. grades 0-3"),
        ({"full_df.csv": "ID,Left-Fundus,Right-Fundus,Left-Diagnostic Keywords,target,filename\n"
          "0,0_left.jpg,0_right.jpg,cataract,\"[1, 0]\",0_right.jpg\n"}, "ODIR names diagnoses"),
        (images("a/0.0.Normal/1.JPG", "a/0.3.DR1/2.JPG", "a/1.0.DR2/3.JPG"), "JSIEC grades DR1"),
        (images("e_optha_MA/MA/x/1.jpg", "e_optha_MA/healthy/y/2.jpg"), "E-ophtha marks lesions"),
    ],
    ids=["messidor", "odir", "jsiec", "eophtha"],
)  # fmt: skip
def test_sets_on_another_scale_or_without_grades_say_so(
    tmp_path: Path, files: dict[str, str | bytes], why: str
) -> None:
    put(tmp_path, files)
    with pytest.raises(UsageError, match=why):
        reading.read(tmp_path)


def test_messidor_and_jsiec_are_read_by_a_map(tmp_path: Path) -> None:
    put(tmp_path, {"m/b.csv": "Image name;Ophthalmologic department;Retinopathy grade\na.tif;X;3\n",
                   "m/a.tif": b"", **images("j/0.0.Normal/1.jpg", "j/0.3.DR1/2.jpg", "j/8.MH/3.jpg")
                   })  # fmt: skip
    messidor = reading.read(tmp_path / "m", columns=Columns(grade_map="0=0,1=1,2=2,3=3"))
    assert rows(messidor) == [("a.tif", 3, None)]
    jsiec = reading.read(tmp_path / "j", columns=Columns(grade_map="0.0.Normal=0,0.3.DR1=1"))
    assert [grade for _, grade, _ in rows(jsiec)] == [0, 1]
    assert reading.count_reasons(jsiec.table) == {reading.NO_GRADE_FOLDER: 1}


# --- which of several ---------------------------------------------------------------------------


def test_a_table_wins_over_class_folders(tmp_path: Path) -> None:
    """Kaggle's 'aptos 224 gaussian filtered' brings both."""
    put(tmp_path, {
        "train.csv": "id_code,diagnosis\nx,2\ny,0\n",
        **images("gaussian/Moderate/x.png", "gaussian/No_DR/y.png"),
    })  # fmt: skip
    data = reading.read(tmp_path)
    assert data.layout == "aptos"
    assert rows(data) == [("gaussian/Moderate/x.png", 2, "train"), ("gaussian/No_DR/y.png", 0,
                                                                    "train")]  # fmt: skip
    assert reading.read(tmp_path, layout="folders").layout == "folders"


def test_of_several_tables_the_one_taken_is_said(tmp_path: Path) -> None:
    put(tmp_path, {
        "old/labels.csv": "image,grade\na,1\nb,1\nc,1\n",
        "labels.csv": "image,grade\na,2\nb,3\n",
        **images("a.png", "b.png"),
    })  # fmt: skip
    data = reading.read(tmp_path)
    assert [grade for _, grade, _ in rows(data)] == [2, 3]
    assert any("took labels.csv" in note and "old/labels.csv" in note for note in data.notes)
    assert reading.read(tmp_path / "old" / "labels.csv").table["grade"].tolist() == [1, 1, 1]


def test_tables_named_after_splits_go_together(tmp_path: Path) -> None:
    put(tmp_path, {
        "train_labels.csv": "name,label\na,1\nb,0\n",
        "val_labels.csv": "name,label\nc,1\n",
        "test_labels.csv": "name,label\na,4\n",
        **images("train/a.png", "train/b.png", "val/c.png", "test/a.png"),
    })  # fmt: skip
    assert rows(reading.read(tmp_path)) == [
        ("train/a.png", 1, "train"),
        ("train/b.png", 0, "train"),
        ("val/c.png", 1, "val"),
        ("test/a.png", 4, "test"),
    ]


def test_two_data_sets_in_one_folder_are_said(tmp_path: Path) -> None:
    eyepacs(tmp_path / "eyepacs")
    aptos(tmp_path / "aptos")
    listener = Listener()
    assert reading.read(tmp_path, observer=listener).layout == "eyepacs"
    assert any("could also be aptos" in note for note in listener.notes)
    assert reading.read(tmp_path, layout="aptos").layout == "aptos"


def test_column_flags_read_any_table(tmp_path: Path) -> None:
    put(tmp_path, {
        "records.tsv": "scan\tgrader A\tgrader B\tperson\tuse\n a.png \t1\t2\tp9\ttest\n",
        **images("a.png"),
    })  # fmt: skip
    with pytest.raises(UsageError, match="--image-column and --grade-column"):
        reading.read(tmp_path)
    columns = Columns(image="scan", grade="Grader B", patient="person", split="use")
    data = reading.read(tmp_path, columns=columns)
    assert rows(data) == [("a.png", 2, "test")]
    assert data.table["patient"].tolist() == ["p9"]
    assert data.extra_columns == ("grader A",)
    assert data.columns == columns
    assert data.columns.to_record()["grade"] == "Grader B"
    assert Columns(split="use").to_record() == {"split": "use"}, "those that were given alone"


def test_column_flags_have_no_say_over_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--patient-column x: .* has no columns"):
        reading.read(folders(tmp_path), columns=Columns(patient="x"))


def test_a_blank_line_in_one_of_the_courses_files_is_no_silent_shift(tmp_path: Path) -> None:
    photographs.course(tmp_path, train=6, test=4)
    for kind, line in (("img", 2), ("label", 4)):
        file = tmp_path / f"train_{kind}.csv"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join([*lines[:line], "\n", *lines[line:]]))
    with pytest.raises(UsageError, match=r"train_img\.csv, row 4, stands beside row 3"):
        reading.read(tmp_path)


def test_npz_with_fewer_labels_than_images_is_refused(tmp_path: Path) -> None:
    pictures = np.zeros((3, 28, 28, 3), np.uint8)
    np.savez(tmp_path / "set.npz", train_images=pictures, train_labels=np.array([0, 1]))
    with pytest.raises(UsageError, match="2 grades for 3 images"):
        reading.read(tmp_path)
    np.savez(tmp_path / "set.npz", train_images=pictures, train_labels=np.array([None] * 3))
    with pytest.raises(UsageError, match="train_labels"):
        reading.read(tmp_path)


def test_tables_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "set.npz").write_bytes(b"no archive")
    with pytest.raises(UsageError, match=r"empty.csv: the table is empty; set.npz: no NumPy"):
        reading.read(tmp_path)
