"""Super-resolved images, and how good they are."""
