"""File formats of pictures: keep the parts that pixels are decoded from, drop metadata, read the orientation."""
