"""RetinaNet as one graph: the same boxes as the detector's, through ONNX Runtime as well."""

import pytest
import torch
from torch import nn
from torchvision.ops import batched_nms

from spanets.deploy.export import export_model
from spanets.detection import Settings, make_detector
from spanets.detection.network.exporting import to_dense
from spanets_runtime.errors import UsageError

SMALL = Settings(channels=8, anchor_scale=4)


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    """With scores above the threshold, which differ from each other."""
    torch.manual_seed(0)
    detector = make_detector("retinanet", "test_resnet", 3, settings=SMALL).eval()
    with torch.no_grad():
        for name, value in detector.head.named_parameters():
            value.mul_(3) if name.endswith("weight") else value.zero_()
    return detector


@pytest.mark.parametrize("size", [(128, 128), (75, 97)])
@torch.no_grad()
def test_choosing_among_its_boxes_gives_the_detections(detector, size):
    """As the docstring tells a runtime to; of few enough anchors that no level has 1000."""
    image = torch.randn(3, *size)
    (found,) = detector([image])
    boxes, scores = (value[0] for value in to_dense(detector)(image[None]))
    places, labels = torch.where(scores > 0.05)
    candidates = scores[places, labels]
    keep = batched_nms(boxes[places], candidates, labels, 0.5)[:100]
    if len(candidates) <= 1000:
        torch.testing.assert_close(boxes[places][keep], found["boxes"])
    # Equal scores may change places; those of the best do not depend on the limit.
    torch.testing.assert_close(candidates[keep][:10], found["scores"][:10])


@pytest.mark.slow  # test_detection_runs.py exports one
def test_a_graph_of_one_size(detector, tmp_path):
    pytest.importorskip("onnxruntime")
    written = export_model(to_dense(detector), tmp_path / "a.onnx", (64, 96), dynamic=False)
    assert written.outputs == ["boxes", "scores"]
    assert written.inputs == {"images": [1, 3, 64, 96]}


@pytest.mark.slow
def test_a_graph_of_free_sizes(detector, tmp_path):
    """Held against eager at three sizes when it is written."""
    pytest.importorskip("onnxruntime")
    written = export_model(to_dense(detector), tmp_path / "a.onnx", 256)
    assert written.inputs == {"images": ["batch", 3, "height", "width"]}
    assert len(written.differences) == 3


def test_what_cannot_be_exported_is_told(detector, tmp_path):
    with pytest.raises(UsageError, match=r"free sizes start at 256 and are multiples of 128"):
        export_model(to_dense(detector), tmp_path / "a.onnx", 300)
    regions = make_detector("mask_rcnn", "test_resnet", 3, settings=SMALL)
    with pytest.raises(UsageError, match="of detectors only retinanet can be exported"):
        to_dense(regions)
