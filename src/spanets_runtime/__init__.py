"""What runs without torch: image files, preprocessing, exported models, messages.

Beside `spanets` and not in it, because importing `spanets` registers its models with timm and so
brings torch. Here numpy and Pillow suffice, and onnxruntime for exported models.
"""
