"""Images for super-resolution: read, prepared, split, cropped."""
