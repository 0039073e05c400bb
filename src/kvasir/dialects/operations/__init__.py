"""What every server answers about itself: health, metrics, and the reference of the Versori API."""
