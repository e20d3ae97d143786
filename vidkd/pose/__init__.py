"""People in pictures: the LCR-Net++-style detector, its training, and what is done with poses."""
