"""Pulumi plugins of the lab, for parts of Pulumi that no registry serves."""
