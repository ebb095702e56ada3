"""Refuses files that hold a program."""


def refuse_program(path: str, command: str) -> None:
    """Refuses a torch.export program in place of a checkpoint, because it is code."""
    from spanets_runtime.errors import UsageError

    if path.lower().endswith(".pt2"):
        raise UsageError(
            f"{path} is a torch.export program; {command} takes FILE.onnx or a checkpoint"
        )
