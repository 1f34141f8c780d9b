"""Tables for a notebook: escaped, and readable on light and dark pages."""

import re

import numpy as np
import pytest
from markupsafe import Markup

from dr_cli import markup

EVIL = "<img src=x onerror=alert('1')>&\""


def test_every_word_is_escaped_once():
    for made in (markup.table([EVIL], [[EVIL]]), markup.facts({EVIL: EVIL}), markup.shade(EVIL, 1)):
        assert "<img" not in made
        assert "&lt;img src=x onerror=alert(&#39;1&#39;)&gt;&amp;&#34;" in made
        assert "&amp;lt;" not in made
    assert "<b>bold</b>" in markup.table((), [[Markup("<b>bold</b>")]])


def test_rows_and_heads_stand_in_order():
    made = markup.table(["a", "b"], [[1, 2], [3, markup.shade(4, 0)]])
    assert re.findall(r">(\w)</t[hd]>", made) == ["a", "b", "1", "2", "3", "4"]
    assert made.count("<tr ") == 3


@pytest.mark.parametrize("share", np.linspace(0, 1, 11))
def test_a_shaded_cell_brings_its_text_colour_and_contrast(share):
    cell = markup.shade("12", share)
    back, text = re.search(r"background:#(\w{6});color:(\w+)", cell).groups()
    light = markup.luminance(np.array(list(bytes.fromhex(back))) / 255)
    other = {"black": 0, "white": 1}[text]
    low, high = sorted([light, other])
    assert (high + 0.05) / (low + 0.05) > 4.5


def test_text_without_a_ground_of_its_own_takes_the_notebooks_colour():
    made = markup.table(["a"], [["b"]]) + markup.facts({"a": "b"})
    assert "color" not in made
    assert "background" not in made
