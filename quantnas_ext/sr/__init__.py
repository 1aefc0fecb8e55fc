"""Super-resolution: image data, the evaluation protocol, and the bridge to BasicSR's training."""
