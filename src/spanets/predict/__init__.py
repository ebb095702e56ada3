"""Checkpoints to answers for images: labels, objects, masks."""
