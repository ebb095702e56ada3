"""Weights under the names of the authors' code."""

from collections import OrderedDict

from torch import Tensor, nn

from spanets.mixers import chunk_sizes
from spanets.spectral import low_frequency_mask

StateDict = dict[str, Tensor]

RADII, BALANCES = (2, 2, 1, 1), (0.7, 0.8, 0.9)


def released_spanet(model: nn.Module, masks: bool = True) -> StateDict:
    """The model's weights under the names of the authors' code: `weights._rename` backwards."""
    renames = [
        ("stem.conv.", "patch_embed.proj."),
        ("head.fc.", "head."),
        (".conv_row.", ".conv.0."),
        (".conv_column.", ".conv.1."),
        *((f"stages.{i}.downsample.conv.", f"network.{2 * i - 1}.proj.") for i in (1, 2, 3)),
        *((f"stages.{i}.blocks.", f"network.{2 * i}.") for i in range(4)),
        *((f"output_norms.{i}.", f"norm{2 * i}.") for i in range(4)),
    ]
    state: StateDict = OrderedDict()
    for key, value in model.state_dict().items():
        for ours, theirs in renames:
            key = key.replace(ours, theirs)
        if ".context." not in key:
            state[key] = value
            continue
        mixer, kind = key.split("context.")
        sizes = chunk_sizes(value.shape[1], 3)
        parts = value.unbind() if kind == "bias" else value.split(sizes, 1)
        for i, part in enumerate(parts):
            state[f"{mixer}pws.{i}.{kind.removeprefix('proj.')}"] = part.contiguous().clone()
            stage = int(key.split(".")[1]) // 2
            if masks:
                mask = low_frequency_mask(56 >> stage, 56 >> stage, RADII[stage], BALANCES[i])
                state[f"{mixer}sps.{i}.filter"] = mask[None]
    return state


def released_spanetv2(model: nn.Module, later: bool = False) -> StateDict:
    """The model's weights under the names of the authors' code, of the later one if so asked."""
    renames = [
        *(
            ("stem.conv.", "downsample_layers.0.conv."),
            ("stem.norm.", "downsample_layers.0.post_norm."),
        ),
        *((f"stages.{i}.downsample.conv.", f"downsample_layers.{i}.conv.") for i in (1, 2, 3)),
        *((f"stages.{i}.downsample.norm.", f"downsample_layers.{i}.pre_norm.") for i in (1, 2, 3)),
        *((f"output_norms.{i}.", f"norm{i}.") for i in range(4)),
        *(("head.norm.", "norm."), ("head.fc.", "head.")),
        *((".blocks.", "."), (".query.", ".query.0."), (".value.", ".ctx.")),
        (".filter.alpha", ".scale.alpha"),
    ]
    if not later:
        renames += [(f".local_convs.{i}.", f".local_conv_{i + 1}.") for i in range(4)]
    state: StateDict = {}
    for key, value in model.state_dict().items():
        for ours, theirs in renames:
            if ours == "head.fc." or key.startswith(ours) or ours.startswith("."):
                key = key.replace(ours, theirs)
        linear = value.ndim == 4 and value.shape[2:] == (1, 1) and ".proj." not in key
        if linear or key.endswith("token_mixer.proj.weight"):
            value = value[:, :, 0, 0]
        if key.endswith(".interleaved"):
            continue
        if key.endswith(".filter.logits") and later:
            state[key.removesuffix(".logits")] = value
        elif key.endswith(".filter.logits"):
            for i in range(4):  # ours lie in the order of the merged channels
                state[key.removesuffix(".filter.logits") + f".filter_{i + 1}"] = value[i::4]
        else:
            state[key] = value
    return {key: value.clone() for key, value in state.items()}
