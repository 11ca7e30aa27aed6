"""Code that users bring: kernels of their own, motifs for random graphs."""
