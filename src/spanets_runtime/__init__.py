"""Code that runs without torch: image files, preprocessing, exported models, messages.

This package is separate from `spanets`, because importing `spanets` loads torch and timm. It needs
only numpy and Pillow, and onnxruntime for exported models.
"""
