"""Scripts that tests run as processes of their own: each ends, or forks, in a way of its own."""
