"""What a notebook shows of a grader and its records."""

import base64
import io
import json
import pickle
import re

import pandas as pd
import pytest
import torch
from PIL import Image

from dr_cli.device import choose
from dr_cli.grades import Calibration, OperatingPoint, Threshold
from dr_cli.network.grader import Grader, Member
from dr_cli.network.records import Record, Records
from dr_cli.network.resnet import ARCHITECTURES, ResNet, build_resnet, name_architecture
from dr_cli.network.telling import FIELDS
from dr_cli.photographs.crop import Preprocessing
from dr_cli.runs import TrainedOn
from tests.builders.photographs import picture

EVIL = "<script>alert(1)</script>.png"


@pytest.fixture(scope="module")
def grader():
    torch.manual_seed(0)
    point = OperatingPoint(Threshold(0.31, "sensitivity=0.90"))
    chosen = Calibration((0.5, 1.5, 2.5, 3.25), 1.0, point)
    learned = TrainedOn("<b>clinic</b>", "ab", False)
    network = build_resnet("resnet18")
    member = Member(network, Preprocessing(32), chosen, choose("cpu", "fp32"), learned)
    return Grader([member, member])


@pytest.fixture(scope="module")
def records(grader, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    picture(2, size=300).save(folder / "one.png")
    return Records(grader.predict([folder / "one.png", EVIL], explain=folder / "heat"))


def test_a_record_is_a_dict_to_everybody_else(records):
    one = records[0]
    assert tuple(one) == FIELDS
    assert one == dict(one) == pickle.loads(pickle.dumps(one))
    assert json.loads(json.dumps(records)) == records == list(map(dict, records))
    assert tuple(pd.DataFrame(records)) == FIELDS
    assert repr(one) == repr(dict(one))


def test_a_table_has_a_row_a_record_and_its_heatmap(records):
    html = records._repr_html_()
    assert html.count("<tr ") == 3
    assert f"{records[0]['predicted']} {records[0]['name']}" in html
    (source,) = re.findall(r"<img src='data:image/jpeg;base64,([^']+)'", html)
    shown = Image.open(io.BytesIO(base64.b64decode(source)))
    assert max(shown.size) == 160
    assert "<img" in records[0]._repr_html_()
    assert "heatmap" not in Records([records[1]])._repr_html_()
    assert "not graded: no such file" in html


def test_names_are_escaped_and_need_not_be_unicode(records):
    odd = records[0] | {"path": b"\xff<i>.png".decode(errors="surrogateescape"), "reason": EVIL}
    html = Records([*records, Record(odd)])._repr_html_()
    assert "<script" not in html
    assert "<i>" not in html
    assert html.count("&lt;script&gt;") == 2
    assert "?&lt;i&gt;.png" in html
    html.encode()


def test_a_heatmap_that_is_gone_is_said(records, tmp_path):
    gone = Record(records[0] | {"heatmap": str(tmp_path / "<gone>.jpg")})
    html = gone._repr_html_()
    assert "&lt;gone&gt;.jpg: no such file" in html
    assert "<img" not in html


def test_a_grader_says_what_it_is(grader):
    html = grader._repr_html_()
    for told in (
        "resnet18, resnet18", "&lt;b&gt;clinic&lt;/b&gt;", "32 px", "0.310 (sensitivity=0.90",
        "expected grade, cut at 0.50, 1.50, 2.50, 3.25",
    ):  # fmt: skip
        assert told in html, told
    plain = Grader([Member(build_resnet("resnet18"), Preprocessing(32), Calibration(),
                           choose("cpu"))])  # fmt: skip
    assert repr(plain) == (
        "Grader(architecture: resnet18; learned from: not known; size: 32 px; decision: the "
        "likeliest grade; referable from: 0.500 (nothing was chosen on validation))"
    )


def test_networks_are_known_by_their_blocks():
    with torch.device("meta"):
        for name in ARCHITECTURES:
            assert name_architecture(build_resnet(name)) == name
        block, _ = ARCHITECTURES["resnet18"]
        assert name_architecture(ResNet(block, (1, 1, 1, 1), 5)) == "a ResNet"
