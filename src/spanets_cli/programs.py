"""Refuses files that hold a program."""


def refuse_program(path: str, command: str, accepted: str = "FILE.onnx or a checkpoint") -> None:
    """Refuses a torch.export program, because it is code; the message names what is accepted."""
    from spanets_runtime.errors import UsageError

    if path.lower().endswith(".pt2"):
        raise UsageError(f"{path} is a torch.export program; {command} takes {accepted}")
