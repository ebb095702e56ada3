"""COCO's format: annotations read and checked, results written, masks as run lengths."""
