"""MLC's formats: its plain layout written, and what MLC compiled read."""
