"""Where the tissue is: detectors, masks and their disk cache."""
