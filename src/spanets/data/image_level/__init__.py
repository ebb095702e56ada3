"""Data of tasks on whole images: keys of the recipe, parts, augmentation and loaders."""
