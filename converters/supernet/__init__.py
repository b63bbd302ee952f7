"""Many sub-networks in one set of weights: width, depth, kernel size and resolution."""
