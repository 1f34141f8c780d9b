"""Grades photographs with what `dr export` wrote, by onnxruntime; torch is not imported.

dr export runs/resnet18 --out model.onnx
python examples/onnx_grade.py model.onnx photographs/*.jpg
"""

import json
import sys
from typing import Any

import onnxruntime

from dr_cli.photographs.crop import Preprocessing, load_crop
from dr_cli.photographs.decoding import UnreadableImage

session = onnxruntime.InferenceSession(sys.argv[1])
told = json.loads(session.get_modelmeta().custom_metadata_map["dr"])
way = Preprocessing.from_dict(told["preprocessing"])
for path in sys.argv[2:]:
    record: dict[str, Any] = {"path": path}  # fields of `dr predict --format jsonl`
    try:
        crop = load_crop(path, way)
        found = session.run(told["outputs"], {"crops": crop.pixels[None]})
        record |= {name: one[0].tolist() for name, one in zip(told["outputs"], found, strict=True)}
        record["name"] = told["grades"][record["predicted"]]
        record["gradable"] = crop.judgement.gradable
        record["referable_threshold"] = told["referable_threshold"]
    except UnreadableImage as error:
        record["error"] = error.reason
    print(json.dumps(record))
