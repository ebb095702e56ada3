"""The training engine, on Lightning: run folders, resuming, devices, faults, optimizers."""
