"""From sound to spikes: features, speech-to-spike encoders, augmentation of spike trains."""
