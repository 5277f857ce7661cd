"""What pictures show: segmentation shares, painted captions, and towers of one space with text."""
