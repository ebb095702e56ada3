"""Statistics of a folder of images before training: what is in it, and what looks odd."""
