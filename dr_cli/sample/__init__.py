"""The built-in sample set: eyes drawn by procedure. No photograph, no patient."""
