"""The room of jobs: personas that are invoked, what their runs do, and what is kept of them."""
