"""Whether ONNX's own checker and Python's onnxruntime accept what `export` writes.

    python3 -m venv V && V/bin/pip install onnx==1.23.2 onnxruntime==1.31.1 numpy
    PIPE_ONNX_DIR=DIR cargo test -p pipe-stages --lib every_architecture
    V/bin/python stages/src/kinds/export/tests/accept.py DIR

Every model in DIR passes `onnx.checker` with shape inference, has the operator set, format and metadata that pipe promises,
and gives in onnxruntime the logits that dfdx computed, to 1e-4 of the largest, at both batch and image sizes that lie beside it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

OPSET, FORMAT, TOLERANCE = 17, 8, 1e-4
FACTS = {"labels", "layout", "patch", "preparation", "spatial_divisor"}


def apart(folder, file):
    """The largest difference of a logit, as a share of the largest logit; asserts all else."""
    onnx.checker.check_model(str(file), full_check=True)
    model = onnx.load(file)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)], model.opset_import
    assert model.ir_version == FORMAT, model.ir_version
    assert {entry.key for entry in model.metadata_props} >= FACTS, model.metadata_props
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    worst = 0.0
    for case in json.loads(file.with_suffix(".json").read_text()):
        read = lambda kind: np.fromfile(folder / f"{file.stem}.{case['input'][0]}.{kind}.f32", "<f4").reshape(case[kind])
        expected, (found,) = read("logits"), session.run(["logits"], {"input": read("input")})
        assert found.shape == expected.shape, (found.shape, expected.shape)
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return worst


def main():
    folder = Path(sys.argv[1])
    files = sorted(folder.glob("*.onnx"))
    if not files:
        sys.exit(f"there is no .onnx file in `{folder}`")
    found = {file.stem: apart(folder, file) for file in files}
    for name, worst in found.items():
        print(f"{name:<36}{worst:.1e}")
    bad = [name for name, worst in found.items() if not worst <= TOLERANCE]
    print(f"{len(found)} models, operator set {OPSET}, largest difference {max(found.values()):.1e} of the largest logit "
          f"(onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__})")
    sys.exit(f"above {TOLERANCE}: {', '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
