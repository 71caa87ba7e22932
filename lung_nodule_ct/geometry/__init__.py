"""The positions of voxels: frames, boxes, and the view in which a volume is shown. Pure functions of numbers and arrays."""
