"""Where voxels are: frames, boxes and the view in which a volume is shown. Pure functions on numbers and arrays."""
