"""How a recurrence over time, or over spike levels, is computed: one folder an op, one signature, several implementations."""
