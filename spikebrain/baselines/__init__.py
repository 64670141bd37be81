"""What the papers compare with: one file a comparator, and the twin without spikes of an encoder."""
