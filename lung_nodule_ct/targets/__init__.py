"""The formats that are written, and the builder classes of Hugging Face datasets and TFDS."""
