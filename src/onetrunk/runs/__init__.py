"""Train and open runs, change their domains, and compare methods and settings."""
