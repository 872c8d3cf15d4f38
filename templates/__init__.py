"""Templates: skeletons of kernels, one folder a target language."""
