"""The commands, one module each: it adds the options, calls the library once, prints."""
