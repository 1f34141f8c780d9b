"""Grades photographs with what `dr export` wrote, by onnxruntime; torch is not imported.

dr export runs/resnet18 --out model.onnx
python examples/onnx_grade.py model.onnx photographs/*.jpg
"""

import json
import sys

import onnxruntime

from dr_cli.photographs.crop import Preprocessing, load_crop
from dr_cli.photographs.decoding import UnreadableImage


def grade(model: str, paths: list[str]):
    """A record a photograph: the fields of `dr predict --format jsonl` that tell its grade."""
    session = onnxruntime.InferenceSession(model)
    told = json.loads(session.get_modelmeta().custom_metadata_map["dr"])
    way = Preprocessing.from_dict(told["preprocessing"])
    for path in paths:
        try:
            crop = load_crop(path, way)
        except UnreadableImage as error:
            yield {"path": path, "error": error.reason}
            continue
        found = session.run(told["outputs"], {"crops": crop.pixels[None]})
        values = {name: value[0] for name, value in zip(told["outputs"], found, strict=True)}
        yield {
            "path": path,
            "gradable": crop.judgement.gradable,
            "name": told["grades"][values["predicted"]],
            "referable_threshold": told["referable_threshold"],
            **{name: value.tolist() for name, value in values.items()},
        }


if __name__ == "__main__":
    for record in grade(sys.argv[1], sys.argv[2:]):
        print(json.dumps(record))
