"""What mixes over time, as functions of queries, keys, values and frame counts."""
