"""THE TRAINER: what is decided before a run, the run, and K runs as one."""
