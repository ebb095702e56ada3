"""Folders of images with masks: pairs of files, mask values, and checks of both."""
