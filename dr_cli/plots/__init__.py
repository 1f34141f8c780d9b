"""THE CONFUSION-MATRIX RENDERER and the other pictures."""
