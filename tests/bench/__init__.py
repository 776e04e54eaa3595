"""How fast kevents is, beside client-go: the measurements, none of which the plain test command runs."""
