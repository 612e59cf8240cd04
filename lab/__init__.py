"""The embedded rehearsal platform: real servers on loopback, and named stand-ins for what no registry offers."""
