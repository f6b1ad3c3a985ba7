"""Makes the reference values of MONAI's sliding window, and of the Gaussians of MONAI and nnU-Net, in this folder.

    python -m venv V && V/bin/pip install torch numpy monai && V/bin/pip install --no-deps nnunetv2 acvl_utils batchgenerators
    V/bin/python make_windows.py     # writes gaussian_*.f32 and window_*.f32 beside this file

Made with Python 3.11.7, torch 2.15.0, numpy 2.4.6, MONAI 1.6.1, nnunetv2 2.8.1. Networks and inputs are those of make.py.
"""

from pathlib import Path

import torch
from make import shallow2d, unet3d, values
from monai.data.utils import compute_importance_map
from monai.inferers import SliceInferer, sliding_window_inference
from nnunetv2.inference.sliding_window_prediction import compute_gaussian

HERE = Path(__file__).parent
TILE = (6, 9, 16)


def store(name, array):
    array.numpy().astype("<f4").tofile(HERE / f"{name}.f32")
    print(name, list(array.shape))


torch.manual_seed(0)
torch.use_deterministic_algorithms(True)
with torch.no_grad():
    store("gaussian_nnunet", compute_gaussian(TILE, dtype=torch.float64, device=torch.device("cpu")))
    store("gaussian_monai", compute_importance_map(TILE, mode="gaussian"))
    # The volume is shorter than the patch along z and longer along y and x; steps of int(0.6 * 8) and int(0.6 * 12).
    volume, patch = values(104, [1, 1, 3, 21, 30], 2.0), (4, 8, 12)
    for mode in ("gaussian", "constant"):
        logits = sliding_window_inference(volume, patch, 1, unet3d, overlap=0.4, mode=mode)
        store(f"window_{mode}", logits.softmax(1))
    slices = SliceInferer(roi_size=patch[1:], spatial_dim=0, overlap=0.4, mode="gaussian")
    store("window_slices", slices(volume, shallow2d).softmax(1))
