"""COCO's format: reads and checks annotations, writes results, and codes masks as run lengths."""
