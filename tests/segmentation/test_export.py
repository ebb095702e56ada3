"""Segmenters as ONNX files of free sizes, run by onnxruntime and held against eager."""

import numpy as np
import pytest
import torch

from spanets.backbones.dense import DenseBackbone
from spanets.deploy.export import export_model
from spanets.segmentation import make_segmenter
from spanets_runtime.onnx import open_session

SMALL = {"semantic_fpn": {"pyramid_channels": 16, "channels": 8}, "upernet": {"channels": 8}}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_onnx_of_free_sizes(kind, tmp_path):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    backbone = DenseBackbone("spanet_nano", {"depths": [1, 1, 1, 1]})
    model = make_segmenter(kind, backbone, 4, SMALL[kind]).eval()
    torch.nn.init.normal_(model.classifier.weight)  # near zero, differences would be hard to see
    written = export_model(model, tmp_path / "masks.onnx", size=96)
    assert written.outputs == ["logits"]
    assert len(written.differences) == 3  # sizes that were compared before the file was written
    session = open_session(tmp_path / "masks.onnx")
    # Also of sizes below those that the exporter proves, down to what backbones take.
    for size in ((64, 128), (75, 201), (32, 32), (33, 40), (32, 300)):
        images = torch.randn(2, 3, *size)
        (logits,) = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            expected = model(images).numpy()
        # float32 over a whole network, of logits of some hundreds
        np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
