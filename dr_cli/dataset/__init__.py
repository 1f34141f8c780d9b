"""THE DATASET: graded photographs as torch wants them, and batches of them."""
