"""The layouts that sets of graded fundus photographs come in: one small entry each.

An entry says how a layout is told from the files in a folder, which of its tables is which, what
its columns are called, and which images a table's rows may take. To teach the package another
one: an entry in `LAYOUTS` (more particular ones first); in `tests/labels/test_layouts.py` a
function that makes it in miniature, and its rows in `EXPECTED` (a test misses it otherwise); its
name in README's table of data sets (`tests/test_readme.py` asks). Only a new kind of
file touches more: `tables` (how it is read), `listing` (that it is seen).

Column names are written as `tables.simplify` spells them: lower case, `_` for anything else.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)
DEFAULT_VAL = 0.15  # of train's images, where the data set brings no validation split

# What other people call these columns, the surest first; used where no entry below is more precise.
IMAGE_COLUMNS = (
    "image", "image_id", "image_name", "id_code", "filename", "file_name", "file", "image_path",
    "img_path", "filepath", "file_path", "path", "img", "img_name", "name", "id",
)  # fmt: skip
GRADE_COLUMNS = (
    "grade", "dr_grade", "retinopathy_grade", "adjudicated_dr_grade", "level", "diagnosis",
    "dr_level", "icdr", "icdr_grade", "severity", "stage", "label", "class", "dr", "target",
)  # fmt: skip
PATIENT_COLUMNS = ("patient", "patient_id", "patientid", "subject", "subject_id", "case_id")
EYE_COLUMNS = ("eye", "laterality", "side", "image_side")
SPLIT_COLUMNS = ("split", "usage", "subset", "partition", "set")


@dataclass(frozen=True)
class Layout:
    """A way to lay out a data set. `image`, `grade`, `patient`, `eye`, `split`: accepted column
    names, the first that is there counts; with `side_of`, the filled cell of all `grade` ones."""

    name: str
    title: str
    files: Mapping[str | None, str] = field(default_factory=dict)
    """Split -> regular expression for the whole file name of its table, case ignored. None: the
    file name says no split. Tables of val and test may be absent."""
    grade_files: Mapping[str | None, str] = field(default_factory=dict)
    """The files that hold the grades where `files` hold the names alone, row by row."""
    own_folders: bool = True
    """Whether a split's images stand under a folder that names it or under one that names no
    split, never another's; else under any."""
    image: tuple[str, ...] = IMAGE_COLUMNS
    grade: tuple[str, ...] = GRADE_COLUMNS
    patient: tuple[str, ...] = PATIENT_COLUMNS
    eye: tuple[str, ...] = EYE_COLUMNS
    split: tuple[str, ...] = SPLIT_COLUMNS
    first_row: str | None = None
    """Of tables without header: what the first row, joined by blanks, must look like."""
    ungradable: tuple[str, ...] = ()
    """Grades that mean "cannot be graded": such rows are left out and counted."""
    gradable: str | None = None
    """A column of 0/1 that must be there; rows with 0 are left out and counted, and may have no
    grade."""
    eye_codes: tuple[tuple[str, str], ...] = ()
    """(cell of the eye column, eye), where that says neither left nor right."""
    stacked: tuple[str, ...] = ()
    """Columns that each name an image of the same eye: a row becomes as many."""
    side_of: tuple[tuple[str, str], ...] = ()
    """(grade column, eye): a row graded in this column is of this eye, whatever its name says."""
    name_pattern: str | None = None
    """Regular expression on an image's stem with groups `patient` and `eye`; default `EYE_NAME`."""
    pairs: str | None = None
    """File name pattern of a table with the columns left and right: a patient's two images."""


EYE_NAME = r"^(?P<patient>.+)[_\-. ](?P<eye>left|right|l|r|od|os)$"
"""`10_left`, `10_L`, `10-R`, `10_OD`: oculus dexter is the right eye, oculus sinister the left."""

EYES = {"left": "left", "l": "left", "os": "left", "right": "right", "r": "right", "od": "right"}

FOLDERS, NPZ, TABLE = "folders", "retinamnist", "table"

LAYOUTS = (
    # https://medmnist.com (retinamnist.npz, retinamnist_64.npz, _128, _224), told by its arrays:
    # {train,val,test}_{images,labels}
    Layout(NPZ, "RetinaMNIST .npz", {None: r".*\.npz"}),
    # https://github.com/deepdrdoc/DeepDRiD
    Layout(
        "deepdrid",
        "DeepDRiD regular fundus images",
        {
            TRAIN: r"regular-fundus-training\.csv",
            VAL: r"regular-fundus-validation\.csv",
            TEST: r"challenge1_labels\.(csv|xlsx)",
        },
        image=("image_path", "image_id"),
        # One column an eye, the other empty. Patient 56's names have two eyes swapped
        # (56_r3 is graded as a left one): the column is believed, not the name.
        grade=("left_eye_dr_level", "right_eye_dr_level", "dr_levels", "dr_level"),
        ungradable=("5",),  # as in its ultra-widefield part
        side_of=(("left_eye_dr_level", "left"), ("right_eye_dr_level", "right")),
        name_pattern=r"^(?P<patient>\d+)_(?P<eye>[lr])\d+$",
    ),
    # https://www.adcis.net/en/third-party/messidor2 and
    # https://www.kaggle.com/datasets/google-brain/messidor2-dr-grades
    Layout(
        "messidor2",
        "Messidor-2 with the adjudicated grades",
        {None: r".*\.csv"},
        image=("image_id", "id_code", "image"),
        grade=("adjudicated_dr_grade", "diagnosis"),
        gradable="adjudicated_gradable",
        pairs=r"messidor-?2\.csv",
    ),
    # https://github.com/nkicsl/DDR-dataset (DR_grading)
    Layout(
        "ddr",
        "DDR, grading",
        {TRAIN: r"train\.txt", VAL: r"valid\.txt", TEST: r"test\.txt"},
        first_row=r".+\.\w+ [0-5]",
        image=("column_1",),
        grade=("column_2",),
        ungradable=("5",),
    ),
    # https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid
    # Both splits count their images from IDRiD_001: each keeps to its own folder.
    Layout(
        "idrid",
        "IDRiD, disease grading",
        {TRAIN: r".*disease.?grading.*train.*\.csv", TEST: r".*disease.?grading.*test.*\.csv"},
        image=("image_name",),
        grade=("retinopathy_grade",),
    ),
    # https://www.kaggle.com/c/diabetic-retinopathy-detection
    # Usage: Public was the leaderboard's part of the test set, Private the final one.
    Layout(
        "eyepacs",
        "Kaggle EyePACS (Diabetic Retinopathy Detection, 2015)",
        {TRAIN: r"train_?labels.*\.csv", TEST: r"(retinopathy_solution|test_?labels).*\.csv"},
        image=("image",),
        grade=("level",),
        split=("usage",),
    ),
    # https://physionet.org/content/brazilian-ophthalmological (labels.csv, fundus_photos/)
    Layout(
        "brset",
        "BRSET, graded on the ICDR scale",
        {None: r".*\.csv"},
        image=("image_id",),
        grade=("dr_icdr",),
        patient=("patient_id",),
        eye=("exam_eye",),
        # As version 1.0.2 has it. Earlier ones have sides exchanged here and there; a fellow eye
        # is the patient's other one all the same.
        eye_codes=(("1", "right"), ("2", "left")),
    ),
    # https://physionet.org/content/mbrset (labels_mbrset.csv)
    Layout(
        "mbrset",
        "mBRSET, photographs of a handheld camera",
        {None: r".*\.csv"},
        image=("file",),
        grade=("final_icdr",),
        patient=("patient",),
        eye=("laterality",),
    ),
    # https://doi.org/10.6084/m9.figshare.12570770 (drLabels.csv grades on three scales)
    Layout(
        "sustech",
        "SUSTech-SYSU, the ICDR grades",
        {None: r"dr_?labels\.csv"},
        image=("fundus_images",),
        grade=("dr_grade_international_clinical_dr_severity_scale",),
        eye=("left_versus_right_eye_left_0_right_1",),
        eye_codes=(("0", "left"), ("1", "right")),
        ungradable=("5",),  # laser spots or scars
    ),
    # https://github.com/FDU-VTS/DRTiD (two photographs of an eye, one grade; no patients)
    Layout(
        "drtid",
        "DRTiD, two fields an eye",
        {TRAIN: r".*dr_?grade_?training.*\.csv", TEST: r".*dr_?grade_?testing.*\.csv"},
        own_folders=False,
        image=("macula", "optic_disc"),
        stacked=("macula", "optic_disc"),
        grade=("grade",),
        eye=("lr",),
        name_pattern=r"^(?P<patient>.+)_[12](?P<eye>)$",  # an eye's two fields stay together
    ),
    # https://www.kaggle.com/c/aptos2019-blindness-detection
    Layout(
        "aptos",
        "Kaggle APTOS 2019",
        {TRAIN: r"train(_1)?\.csv", VAL: r"valid(ation)?\.csv", TEST: r"test\.csv"},
        image=("id_code",),
        grade=("diagnosis",),
    ),
    # The course's hand-out.
    Layout(
        "course",
        "the course lab (names and grades in two files without header)",
        {TRAIN: r"train_img\.csv", TEST: r"test_img\.csv"},
        grade_files={TRAIN: r"train_label\.csv", TEST: r"test_label\.csv"},
        own_folders=False,
    ),
    # Any CSV, TSV or .xlsx with a column of images and a column of grades.
    Layout(TABLE, "a table of images and grades", own_folders=False),
    # 0/ 1/ 2/ 3/ 4/ or their names, with or without train/ val/ test/ above.
    Layout(FOLDERS, "one folder a grade"),
)
"""In the order of trial: an entry that asks for more comes first."""

FOREIGN = {
    r"(^|.*/)0\.3\.DR1(/.*|$)": "JSIEC grades DR1 to DR3 on a scale of its own, not 0-4: say what"
    ' they mean, such as --grade-map "0.0.Normal=0,0.3.DR1=1,…"; other folders are left out',
    r"(^|.*/)e[-_]?oph?tha([-_].*)?(/.*|$)": "E-ophtha marks lesions and has no grades:"
    " nothing that this program could learn from",
}
"""Sets whose folders look like grades and are none: folder's path -> what to say."""

FOREIGN_COLUMNS = {
    "ophthalmologic_department": "Messidor (1) grades 0-3 on a scale of its own, by counts of"
    " lesions, whose 3 holds severe and proliferative eyes alike: take Messidor-2 with its"
    ' adjudicated grades, or say what you want it to mean, such as --grade-map "0=0,1=1,2=2,3=3"',
    "left_diagnostic_keywords": "ODIR names diagnoses in words, a patient a row, most without a"
    " stage of retinopathy: it has no grades to read",
}
"""The same of tables: a column that only they have -> what to say."""

BY_NAME = {layout.name: layout for layout in LAYOUTS}

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "public"), VAL),
    **dict.fromkeys(("test", "testing", "evaluation", "eval", "private"), TEST),
}
_IN_FOLDER = re.compile(
    r"(?<![a-z])(train|training|val|valid|validation|test|testing|evaluation)(?:set|data)?(?![a-z])"
)

_GRADE_WORDS = {
    **dict.fromkeys(("no", "none", "normal", "healthy", "negative", "nodr"), 0),
    **dict.fromkeys(("mild", "mildnpdr"), 1),
    **dict.fromkeys(("moderate", "moderatenpdr"), 2),
    **dict.fromkeys(("severe", "severenpdr"), 3),
    **dict.fromkeys(("proliferative", "proliferate", "pdr"), 4),
}
_GRADE_FILLERS = re.compile(
    r"(?<![a-z])(grade|class|level|label|stage|dr|npdr|diabetic|retinopathy|apparent|signs?|of)"
    r"(?![a-z])"
)


def parse_split(word: str) -> str | None:
    """What a cell of a split column means ("Training", "valid", "Private"); None if unknown."""
    return _SPLIT_WORDS.get(word.strip().lower())


@functools.cache
def parse_folder(folder: str) -> str | None:
    """The split that a folder's path names ("1. Images/b. Testing Set"), the innermost first."""
    words = _IN_FOLDER.findall(folder.lower())
    return _SPLIT_WORDS[words[-1]] if words else None


@functools.cache
def parse_grade(text: str) -> int | None:
    """The grade 0-4 that a cell or a folder's name means; None if it means none.

    Understood: "2", "2.0", "grade_2", "class 2", "R2", "Moderate", "moderate_NPDR",
    "2 - Moderate DR", "No DR", "Proliferate_DR". A number and a name that contradict each other
    mean none.
    """
    text = text.strip().lower()
    if re.fullmatch(r"[-+]?[\d.]+", text):
        return int(text[0]) if re.fullmatch(r"[0-4](\.0*)?", text) else None
    if re.fullmatch("r[0-4]", text):  # the Scottish scale; `scale` tells it from the English one
        return int(text[1])
    parts = _split_words(text)
    meant = {int(part) if re.fullmatch("[0-4]", part) else _GRADE_WORDS.get(part) for part in parts}
    return meant.pop() if len(meant) == 1 else None


@functools.cache
def parse_number(text: str) -> int | None:
    """The number in a cell or a folder's name that says nothing else, on whatever scale: "5",
    "5.0", "class 5", "-1"; None for all else."""
    text = text.strip().lower()
    if re.fullmatch(r"-?\d+(\.0*)?", text):
        return int(text.partition(".")[0])
    parts = _split_words(text)
    return int(parts[0]) if len(parts) == 1 and re.fullmatch("[0-9]{1,4}", parts[0]) else None


def _split_words(text: str) -> list[str]:
    """The words of a lower-case text, without those that only say that it is a grade."""
    words = re.sub(r"[\W_]+", " ", re.sub(r"([a-z])(\d)", r"\1 \2", text))
    return _GRADE_FILLERS.sub(" ", words).split()
