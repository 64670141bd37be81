"""Parts that encoders share."""
