"""Calls of other libraries on a timm model: what users of timm's models do with them.

Each takes a network of ten classes, evaluating, and images (2, 3, 64, 64). It returns the largest
relative difference from the plain network's logits, or None; it raises an error where it fails.
"""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Run = Callable[[nn.Module, Tensor], float | None]


@dataclass(frozen=True)
class Call:
    """A call of a library; `package` is the name of its distribution, `module` what it imports."""

    package: str
    module: str
    words: str
    run: Run


CALLS: list[Call] = []

EXACT, CLOSE, ROUGH = 1e-6, 1e-4, 0.5
"""Allowed differences: the same sums; other sums in float32; eight bits."""


def call(package: str, words: str, module: str = "") -> Callable[[Run], Run]:
    """Registers a call."""

    def register(run: Run) -> Run:
        CALLS.append(Call(package, module or package.replace("-", "_"), words, run))
        return run

    return register


def difference(ours: Tensor, theirs: Tensor, limit: float) -> float:
    """Returns the largest difference over the largest value; an AssertionError above the limit."""
    ours, theirs = ours.detach().double(), theirs.detach().double()
    assert ours.shape == theirs.shape, f"shape {tuple(ours.shape)}, not {tuple(theirs.shape)}"
    found = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert found <= limit, f"off by {found:.1e} of the largest value"
    return found


def step(model: nn.Module, x: Tensor) -> None:
    """Trains one step; an AssertionError if a parameter gets no gradient."""
    F.cross_entropy(model.train()(x), torch.arange(len(x))).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, f"no gradient for {len(without)} parameters, first {without[0]}"


# ---- adapters


def adapted(model: nn.Module, x: Tensor, kind: str, **settings: object) -> float:
    import peft

    inner = peft.get_peft_model(model, getattr(peft, kind)(**settings))
    step(inner, x)
    torch.manual_seed(0)
    with torch.no_grad():
        for value in inner.parameters():
            if value.requires_grad:
                value.add_(0.02 * torch.randn_like(value))
        before = inner.eval()(x)
        return difference(inner.merge_and_unload()(x), before, CLOSE)


MLPS = r".*\.mlp\.fc\d"


@call("peft", "LoRA on the MLPs, a step, merged")
def lora(model: nn.Module, x: Tensor) -> float:
    return adapted(model, x, "LoraConfig", target_modules=MLPS)


@call("peft", "DoRA on the MLPs, a step, merged")
def dora(model: nn.Module, x: Tensor) -> float:
    return adapted(model, x, "LoraConfig", target_modules=MLPS, use_dora=True)


@call("peft", "LoHa on the MLPs, a step, merged")
def loha(model: nn.Module, x: Tensor) -> float:
    return adapted(model, x, "LoHaConfig", target_modules=MLPS, r=4, alpha=4)


@call("peft", "IA3 on the MLPs, a step, merged")
def ia3(model: nn.Module, x: Tensor) -> float:
    return adapted(model, x, "IA3Config", target_modules=MLPS, feedforward_modules=r".*\.fc2")


@call("peft", "LoRA on the MLPs, each block sharded by FSDP2, three steps")
def sharded_lora(model: nn.Module, x: Tensor) -> float:
    import peft
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    whole = peft.get_peft_model(model, peft.LoraConfig(target_modules=MLPS, r=4))
    sharded = copy.deepcopy(whole)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", f"file://{folder}/store", rank=0, world_size=1)
        try:
            mesh = init_device_mesh("cpu", (1,))
            for stage in sharded.base_model.model.stages:
                for block in stage.blocks:
                    fully_shard(block, mesh=mesh)
            fully_shard(sharded, mesh=mesh)
            logits = []
            for one in (whole, sharded):
                trained = [value for value in one.parameters() if value.requires_grad]
                optimizer = torch.optim.AdamW(trained, 1e-2)
                torch.manual_seed(0)
                for _ in range(3):
                    step(one, x)
                    optimizer.step()
                    optimizer.zero_grad()
                with torch.no_grad():
                    logits.append(one.eval()(x))
        finally:
            dist.destroy_process_group()
    return difference(logits[1], logits[0], CLOSE)


@call("loralib", "every linear layer replaced, a step")
def loralib_layers(model: nn.Module, x: Tensor) -> float:
    import loralib

    with torch.no_grad():
        before = model(x)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                new = loralib.Linear(child.in_features, child.out_features, r=4)
                new.load_state_dict(child.state_dict(), strict=False)
                setattr(parent, name, new)
    found = difference(model.eval()(x), before, CLOSE)
    step(model, x)
    return found


# ---- counters of operations, against FlopCounterMode


def counted(model: nn.Module, x: Tensor, macs: float) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    off = abs(2 * macs / counter.get_total_flops() - 1)
    assert off < 0.08, f"counts {macs / 1e6:.0f} M, off by {100 * off:.0f} %"
    return off


@call("thop", "profile")
def thop(model: nn.Module, x: Tensor) -> float:
    import thop

    return counted(model, x[:1], thop.profile(copy.deepcopy(model), (x[:1],), verbose=False)[0])


@call("ptflops", "get_model_complexity_info, both backends")
def ptflops(model: nn.Module, x: Tensor) -> float:
    from ptflops import get_model_complexity_info

    found = [
        get_model_complexity_info(model, (3, 64, 64), False, False, backend=backend)[0]
        for backend in ("pytorch", "aten")
    ]
    return max(counted(model, x[:1], macs) for macs in found)


@call("torchinfo", "summary")
def torchinfo(model: nn.Module, x: Tensor) -> float:
    import torchinfo

    found = torchinfo.summary(model, input_data=x[:1], verbose=0)
    assert found.total_params == sum(p.numel() for p in model.parameters())
    return counted(model, x[:1], found.total_mult_adds)


@call("fvcore", "FlopCountAnalysis")
def fvcore(model: nn.Module, x: Tensor) -> float:
    from fvcore.nn import FlopCountAnalysis

    return counted(model, x[:1], FlopCountAnalysis(model, x[:1]).total())


@call("torchprofile", "profile_macs")
def torchprofile(model: nn.Module, x: Tensor) -> float:
    from torchprofile import profile_macs

    return counted(model, x[:1], profile_macs(model, x[:1]))


@call("flopth", "flopth")
def flopth(model: nn.Module, x: Tensor) -> None:
    from flopth import flopth as count

    count(model, in_size=((3, 64, 64),))


# ---- looking inside


@call("captum", "IntegratedGradients; LayerGradCam at each convolution of a block")
def captum(model: nn.Module, x: Tensor) -> None:
    from captum.attr import IntegratedGradients, LayerGradCam

    IntegratedGradients(model).attribute(x, target=1, n_steps=4)
    for layer in model.stages[-1].blocks[-1].modules():
        if isinstance(layer, nn.Conv2d):
            LayerGradCam(model, layer).attribute(x, target=1)


@call("grad-cam", "GradCAM, EigenCAM and FullGrad of the last stage", "pytorch_grad_cam")
def grad_cam(model: nn.Module, x: Tensor) -> None:
    import pytorch_grad_cam as cams

    for kind in (cams.GradCAM, cams.EigenCAM, cams.FullGrad):
        with kind(model=model, target_layers=[model.stages[-1]]) as cam:
            assert cam(input_tensor=x, targets=None).shape == (2, 64, 64)


@call("torchcam", "GradCAM of the layer that it finds")
def torchcam(model: nn.Module, x: Tensor) -> None:
    from torchcam.methods import GradCAM

    cam = GradCAM(model, input_shape=(3, 64, 64))
    cam(1, model(x[:1]))


@call("torchcam", "CAM of the layer that it finds")
def torchcam_cam(model: nn.Module, x: Tensor) -> None:
    from torchcam.methods import CAM

    cam = CAM(model, input_shape=(3, 64, 64))
    cam(1, model(x[:1]))


@call("zennit", "gradient and SmoothGrad attributors")
def zennit(model: nn.Module, x: Tensor) -> None:
    from zennit.attribution import Gradient, SmoothGrad

    target = torch.eye(10)[[1, 2]]
    for kind in (Gradient, SmoothGrad):
        with kind(model) as attributor:
            assert attributor(x.clone(), target)[1].shape == x.shape


@call("surgeon-pytorch", "Extract of a stage and an MLP's layer", "surgeon_pytorch")
def surgeon(model: nn.Module, x: Tensor) -> None:
    from surgeon_pytorch import Inspect

    _, found = Inspect(model, layer=["stages.1", "stages.2.blocks.0.mlp.fc2"])(x)
    assert len(found) == 2


@call("torchview", "draw_graph")
def torchview(model: nn.Module, x: Tensor) -> None:
    from torchview import draw_graph

    assert draw_graph(model, input_data=x, depth=2).visual_graph.source


@call("torchvision", "get_graph_node_names; each block's mlp.fc2 extracted")
def nodes(model: nn.Module, x: Tensor) -> None:
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    layers = [name for name, _ in model.named_modules() if name.endswith("mlp.fc2")]
    assert set(layers) <= set(get_graph_node_names(model)[1])
    assert len(create_feature_extractor(model, layers)(x)) == len(layers)


# ---- training, gradients, pruning


@call("accelerate", "cpu_offload of every layer")
def offloaded(model: nn.Module, x: Tensor) -> float:
    from accelerate import cpu_offload

    with torch.no_grad():
        before = model(x)
        return difference(cpu_offload(model, torch.device("cpu"))(x), before, CLOSE)


@call("accelerate", "dispatch_model, half of the layers on disk")
def dispatched(model: nn.Module, x: Tensor) -> float:
    from accelerate import dispatch_model

    with torch.no_grad():
        before = model(x)
    places = {}
    for name, module in model.named_modules():
        own = [key for key, _ in module.named_parameters(recurse=False)]
        if list(module.children()):
            places |= {f"{name}.{key}": "cpu" for key in own}
        else:
            places[name] = ("cpu", "disk")[len(places) % 2]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        moved = dispatch_model(model, places, "cpu", offload_dir=folder, force_hooks=True)
        return difference(moved(x), before, CLOSE)


@call("opacus", "GradSampleModule: per-sample gradients of all layers")
def opacus(model: nn.Module, x: Tensor) -> float:
    from opacus import GradSampleModule

    twin = copy.deepcopy(model)
    F.cross_entropy(twin.train()(x), torch.tensor([0, 1])).backward()
    wrapped = GradSampleModule(model.train())
    F.cross_entropy(wrapped(x), torch.tensor([0, 1])).backward()
    true = dict(twin.named_parameters())
    pairs = [
        (value.grad_sample.sum(0) / 2, true[name.removeprefix("_module.")].grad)
        for name, value in wrapped.named_parameters()
    ]
    return max(difference(ours, theirs, 1e-2) for ours, theirs in pairs)


@call("torch-pruning", "MagnitudePruner, half of the channels, a step", "torch_pruning")
def pruned(model: nn.Module, x: Tensor) -> None:
    import torch_pruning as tp

    last = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 10]
    before = sum(p.numel() for p in model.parameters())
    tp.pruner.MagnitudePruner(
        model, x, tp.importance.MagnitudeImportance(), pruning_ratio=0.5, ignored_layers=last
    ).step()
    assert sum(p.numel() for p in model.parameters()) < 0.6 * before
    step(model, x)


@call("pytorch-ignite", "create_supervised_trainer, two steps", "ignite")
def ignite(model: nn.Module, x: Tensor) -> None:
    from ignite.engine import create_supervised_trainer

    optimizer = torch.optim.AdamW(model.parameters())
    trainer = create_supervised_trainer(model, optimizer, F.cross_entropy)
    trainer.run([(x, torch.tensor([0, 1]))] * 2)


@call("skorch", "NeuralNetClassifier, an epoch")
def skorch(model: nn.Module, x: Tensor) -> None:
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        model, criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0
    )
    net.fit(x.numpy(), torch.tensor([0, 1]).numpy())
    assert net.predict(x.numpy()).shape == (2,)


@call("ema-pytorch", "EMA, two updates")
def ema(model: nn.Module, x: Tensor) -> float:
    from ema_pytorch import EMA

    average = EMA(model, update_every=1, update_after_step=0)
    for _ in range(2):
        average.update()
    with torch.no_grad():
        return difference(average.eval()(x), model(x), EXACT)


@call("pytorch-optimizer", "Lion and Prodigy, a step each")
def optimizers(model: nn.Module, x: Tensor) -> None:
    from pytorch_optimizer import create_optimizer

    for name in ("lion", "prodigy"):
        optimizer = create_optimizer(model, name, lr=1e-3, weight_decay=0.01)
        optimizer.zero_grad()
        step(model, x)
        optimizer.step()


@call("kornia", "augmentations before the network", "kornia")
def kornia(model: nn.Module, x: Tensor) -> None:
    import kornia.augmentation as augmentation

    step(nn.Sequential(augmentation.RandomHorizontalFlip(), model), x)


@call("backpack-for-pytorch", "BatchGrad of the classifier", "backpack")
def backpack(model: nn.Module, x: Tensor) -> None:
    from backpack import backpack as extended
    from backpack import extend
    from backpack.extensions import BatchGrad

    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    loss, layer = extend(nn.CrossEntropyLoss()), extend(last)
    with extended(BatchGrad()):
        loss(model(x), torch.tensor([0, 1])).backward()
    assert layer.weight.grad_batch.shape == (2, *layer.weight.shape)
