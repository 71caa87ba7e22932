"""A finished build and everything that reads it: the folder, its rows and volumes, patient sequences, sidecar files."""
