"""Training and evaluation on Lightning, one module a task; needs the `train` extra."""
