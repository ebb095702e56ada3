"""Images with masks in folders: pairs of files, the values of pixels, what is wrong with them."""
