"""What every server answers about itself: health, metrics, and the reference of its APIs; and the console."""
