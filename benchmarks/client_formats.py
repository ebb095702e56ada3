"""Calls that take a network's maps, quantize it or record it; see `client_calls`."""

import io
import os
import tempfile
from contextlib import chdir
from typing import Any

import timm
import torch
from client_calls import CLOSE, ROUGH, call, difference
from torch import Tensor, nn

INT8 = 0.5
"""Of activations in int8, too. The weights are random, so the logits are almost equal numbers."""

# ---- features, other heads


def features(model: nn.Module, **settings: object) -> nn.Module:
    return timm.create_model(model.default_cfg["architecture"], features_only=True, **settings)


@call("timm", "features_only: list, dict, fx; output_stride 8")
def timm_features(model: nn.Module, x: Tensor) -> None:
    for settings in ({"feature_cls": "list"}, {"feature_cls": "dict"}, {"feature_cls": "fx"}):
        assert len(features(model, **settings)(x)) == 4
    assert features(model, output_stride=8)(x)[-1].shape[-1] == 8


@call("torchvision", "BackboneWithFPN of features_only with feature_cls='list'")
def fpn(model: nn.Module, x: Tensor) -> None:
    _run_fpn(features(model, feature_cls="list"), x)


@call("torchvision", "BackboneWithFPN of features_only")
def fpn_plain(model: nn.Module, x: Tensor) -> None:
    _run_fpn(features(model), x)


def _run_fpn(body: Any, x: Tensor) -> None:
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    stages = [name for name, _ in body.named_children() if name.startswith("stages")]
    assert len(stages) == 4
    layers = {name: str(i) for i, name in enumerate(stages)}
    maps = BackboneWithFPN(body, layers, body.feature_info.channels(), 32)(x)
    sides = [m.shape[-1] for m in maps.values()]  # the last one is pooled
    assert sides[:4] == [m.shape[-1] for m in body(x)]


@call("segmentation_models_pytorch", "Unet and DeepLabV3Plus, a step")
def smp(model: nn.Module, x: Tensor) -> None:
    import segmentation_models_pytorch as smp

    for kind in (smp.Unet, smp.DeepLabV3Plus):
        net = kind(f"tu-{model.default_cfg['architecture']}", encoder_weights=None)
        net(x).mean().backward()


@call("transformers", "TimmWrapper: logits; TimmBackbone: maps")
def transformers(model: nn.Module, x: Tensor) -> None:
    from transformers import (
        AutoModelForImageClassification,
        TimmBackbone,
        TimmBackboneConfig,
        TimmWrapperConfig,
    )

    name = model.default_cfg["architecture"]
    config = TimmWrapperConfig(architecture=name, num_labels=7)
    assert AutoModelForImageClassification.from_config(config)(x).logits.shape == (2, 7)
    config = TimmBackboneConfig(backbone=name, use_pretrained_backbone=False, out_indices=(1, 3))
    assert len(TimmBackbone(config)(x).feature_maps) == 2


# ---- quantized


@call("torchao", "quantize_ with Int8WeightOnlyConfig")
def torchao(model: nn.Module, x: Tensor) -> float:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    with torch.no_grad():
        before = model(x)
        quantize_(model, Int8WeightOnlyConfig())
        return difference(model(x), before, ROUGH)


@call("optimum-quanto", "int8 weights", "optimum.quanto")
def quanto(model: nn.Module, x: Tensor) -> float:
    from optimum.quanto import freeze, qint8, quantize

    with torch.no_grad():
        before = model(x)
        quantize(model, weights=qint8)
        freeze(model)
        return difference(model(x), before, ROUGH)


# ---- recorded


@call("nncf", "quantize: weights and maps in int8")
def nncf(model: nn.Module, x: Tensor) -> float:
    import nncf

    images = nncf.Dataset([x + i for i in range(4)])
    with torch.no_grad():
        expected = model(x)
        return difference(nncf.quantize(model, images, subset_size=4)(x), expected, INT8)


@call("nncf", "compress_weights, int8")
def nncf_weights(model: nn.Module, x: Tensor) -> float:
    import nncf

    mode = nncf.CompressWeightsMode.INT8_ASYM
    with torch.no_grad():
        expected = model(x)
        found = nncf.compress_weights(model, mode=mode, dataset=nncf.Dataset([x]))(x)
        return difference(found, expected, ROUGH)


@call("nncf", "quantize of OpenVINO's model of the ONNX file")
def nncf_openvino(model: nn.Module, x: Tensor) -> float:
    import nncf
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.onnx"
        torch.onnx.export(model, (x,), path, dynamo=True)
        graph = openvino.Core().read_model(path)
        images = nncf.Dataset([(x + i).numpy() for i in range(4)])
        ready = openvino.compile_model(nncf.quantize(graph, images, subset_size=4), "CPU")
        with torch.no_grad():
            return difference(torch.from_numpy(ready(x.numpy())[0]), model(x), INT8)


@call("lightly-train", "get_wrapped_model by name", "lightly_train")
def lightly_by_name(model: nn.Module, x: Tensor) -> None:
    from lightly_train._models.package_helpers import get_wrapped_model

    name = f"timm/{model.default_cfg['architecture']}"
    wrapped = get_wrapped_model(name, num_input_channels=3, load_weights=False)
    assert wrapped.forward_features(x)["features"].shape[1] == wrapped.feature_dim()


@call("lightly-train", "get_wrapped_model of a network", "lightly_train")
def lightly_by_network(model: nn.Module, x: Tensor) -> None:
    from lightly_train._models.package_helpers import get_wrapped_model

    get_wrapped_model(model, num_input_channels=3)


@call("lightly-train", "pretrain by name, an epoch, and its exported weights", "lightly_train")
def lightly_pretrain(model: nn.Module, x: Tensor) -> None:
    import lightly_train
    from torchvision.utils import save_image

    name = model.default_cfg["architecture"]
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/images")
        for i in range(4):
            save_image(torch.rand(3, 96, 96), f"{folder}/images/{i}.png")
        lightly_train.pretrain(
            out=f"{folder}/out",
            data=f"{folder}/images",
            model=f"timm/{name}",
            method="simclr",
            epochs=1,
            batch_size=2,
            num_workers=0,
            accelerator="cpu",
            devices=1,
            transform_args={"image_size": (64, 64)},
        )
        weights = torch.load(f"{folder}/out/exported_models/exported_last.pt", weights_only=True)
        timm.create_model(name).load_state_dict(weights)


@call("torch", "torch.fx symbolic_trace")
def symbolic(model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return difference(torch.fx.symbolic_trace(model)(x), model(x), CLOSE)


@call("torch", "torch.jit.script, saved and loaded")
def scripted(model: nn.Module, x: Tensor) -> float:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(model), buffer)
    buffer.seek(0)
    with torch.no_grad():
        return difference(torch.jit.load(buffer)(x), model(x), CLOSE)


def exported(model: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model, (x,), strict=False)


@call("torch", "torch.export, one size")
def program(model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return difference(exported(model, x).module()(x), model(x), CLOSE)


@call("coremltools", "convert of torch.export's program")
def coreml(model: nn.Module, x: Tensor) -> None:
    import coremltools

    x = torch.randn(1, 3, 224, 224)  # at their own size, SPANetV2's filters are not resized
    coremltools.convert(
        exported(model, x).run_decompositions({}),
        minimum_deployment_target=coremltools.target.iOS17,
    )


@call("coremltools", "convert of torch.jit.trace's record")
def coreml_trace(model: nn.Module, x: Tensor) -> None:
    import coremltools

    size = coremltools.TensorType(shape=(1, 3, 64, 64))
    coremltools.convert(torch.jit.trace(model, x[:1]), inputs=[size])


@call("openvino", "convert_model of the network, any size")
def openvino_module(model: nn.Module, x: Tensor) -> float:
    import openvino

    ready = openvino.compile_model(openvino.convert_model(model, example_input=x), "CPU")
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        return difference(torch.from_numpy(ready(x.numpy())[0]), model(x), 1e-2)


@call("openvino", "convert_model of torch.export's program")
def openvino(model: nn.Module, x: Tensor) -> float:
    import openvino

    ready = openvino.compile_model(openvino.convert_model(exported(model, x)), "CPU")
    with torch.no_grad():
        return difference(torch.from_numpy(ready(x.numpy())[0]), model(x), 1e-2)  # may use bfloat16


@call("onnxruntime", "quantize_static (QDQ) of torch.onnx.export's free-size file")
def quantize_static(model: nn.Module, x: Tensor) -> float:
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from torch.export import Dim

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter([{"images": x.numpy()}])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    free = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    # Its shape inference writes into the working directory, and leaves it there.
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        path = f"{folder}/model"
        torch.onnx.export(
            model, (x,), f"{path}.onnx", dynamo=True, dynamic_shapes=(free,), input_names=["images"]
        )
        quant_pre_process(f"{path}.onnx", f"{path}-known.onnx")
        quantize_static(f"{path}-known.onnx", f"{path}-int8.onnx", Reader(), per_channel=True)
        session = onnxruntime.InferenceSession(f"{path}-int8.onnx")
        found = session.run(None, {"images": x.numpy()})[0]
    with torch.no_grad():
        return difference(torch.as_tensor(found), model(x), INT8)


@call("litert-torch", "convert, run by LiteRT", "litert_torch")
def litert(model: nn.Module, x: Tensor) -> float:
    import litert_torch

    with torch.no_grad():
        return difference(torch.as_tensor(litert_torch.convert(model, (x,))(x)), model(x), 1e-3)


def run_by_executorch(program: torch.export.ExportedProgram, x: Tensor, *parts: Any) -> Tensor:
    """Lowers a program, to XNNPACK by a partitioner or to portable kernels, and runs it."""
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    # Each of these needs the one before it to be alive.
    stored = to_edge_transform_and_lower(program, partitioner=list(parts)).to_executorch().buffer
    loaded = Runtime.get().load_program(stored)
    method = loaded.load_method("forward")
    return method.execute([x])[0].clone()


@call("executorch", "XNNPACK, run by its runtime")
def executorch(model: nn.Module, x: Tensor) -> float:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    with torch.no_grad():
        found = run_by_executorch(exported(model, x), x, XnnpackPartitioner())
        return difference(found, model(x), 1e-3)


@call("executorch", "portable kernels, run by its runtime")
def executorch_portable(model: nn.Module, x: Tensor) -> float:
    x = x[:1, :, :32, :32].contiguous()
    with torch.no_grad():
        return difference(run_by_executorch(exported(model, x), x), model(x), 1e-3)


@call("executorch", "int8 by PT2E and XNNPACKQuantizer, run by its runtime")
def executorch_int8(model: nn.Module, x: Tensor) -> float:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    with torch.no_grad():
        ready = prepare_pt2e(exported(model, x).module(), quantizer)
        ready(x)
        program = torch.export.export(convert_pt2e(ready), (x,), strict=False)
        return difference(run_by_executorch(program, x, XnnpackPartitioner()), model(x), INT8)
